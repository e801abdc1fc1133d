--[[
  Take an errand off the outbox.

  KEYS[1]  the outbox
  ARGV[1]  name of the consumer group
  ARGV[2]  id of the errand

  Returns 1 or 0.
]]
local outbox, group, errand = KEYS[1], ARGV[1], ARGV[2]

redis.call("XACK", outbox, group, errand)
return redis.call("XDEL", outbox, errand)

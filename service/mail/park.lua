--[[
  Park an errand again that had been parked, was tried again and failed once more: the new entry takes the old one's place.

  KEYS[1]  the parked errands
  ARGV[1]  name of the consumer group
  ARGV[2]  id of the old entry
  ARGV[3]  field, ARGV[4] its value, and so on: the new entry

  Returns 1, or 0 when the old entry is gone: somebody dropped it, or this has been done. Run again, it does nothing more.
]]
local parked, group, entry = KEYS[1], ARGV[1], ARGV[2]

redis.pcall("XACK", parked, group, entry)
if redis.call("XDEL", parked, entry) == 0 then return 0 end
redis.call("XADD", parked, "*", unpack(ARGV, 3))
return 1

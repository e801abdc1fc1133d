--[[
  Give up a lookup, if it still is one's own.

  KEYS[1]  the lookup
  ARGV[1]  user id

  Returns 1 or 0.
]]
local lookup, user = KEYS[1], ARGV[1]

if redis.call("GET", lookup) ~= user then return 0 end
return redis.call("DEL", lookup)

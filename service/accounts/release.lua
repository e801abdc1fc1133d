--[[
  Give up a lookup, if it still is one's own.

  KEYS[1]  the part with the lookup
  ARGV[1]  the lookup, a field of it
  ARGV[2]  user id

  Returns 1 or 0.
]]
local part, lookup, user = KEYS[1], ARGV[1], ARGV[2]

if string.match(redis.call("HGET", part, lookup) or "", "^%S+") ~= user then return 0 end
return redis.call("HDEL", part, lookup)

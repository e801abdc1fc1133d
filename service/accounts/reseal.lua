--[[
  Replace a value, if it still is what the caller has read.

  KEYS[1]  the key
  ARGV[1]  the value as read
  ARGV[2]  the new value

  Returns 1 or 0.
]]
local key, read, new = KEYS[1], ARGV[1], ARGV[2]

if redis.call("GET", key) ~= read then return 0 end
redis.call("SET", key, new)
return 1

--[[
  Replace the entry of a key by the same one sealed anew, unless it has changed or gone meanwhile.

  KEYS[1]  the ring
  ARGV[1]  kid
  ARGV[2]  the entry as it was read
  ARGV[3]  the entry sealed anew

  Returns 1, or 0 when it was another.
]]
local ring, kid, was, entry = KEYS[1], ARGV[1], ARGV[2], ARGV[3]

local existing = redis.call("HGET", ring, kid)
if existing == was then redis.call("HSET", ring, kid, entry) end
return (existing == was or existing == entry) and 1 or 0

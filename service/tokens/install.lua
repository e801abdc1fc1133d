--[[
  Add a signing key to the ring unless it has one of that algorithm already.

  KEYS[1]  the ring
  ARGV[1]  kid
  ARGV[2]  algorithm
  ARGV[3]  the rest of the entry: when it was made, and the sealed key

  Returns the ring: {kid, entry, kid, entry, ...}.
]]
local ring, kid, algorithm, entry = KEYS[1], ARGV[1], ARGV[2], ARGV[3]

for _, existing in ipairs(redis.call("HVALS", ring)) do
  if string.match(existing, "^%S+") == algorithm then return redis.call("HGETALL", ring) end
end
redis.call("HSET", ring, kid, algorithm .. " " .. entry)
return redis.call("HGETALL", ring)

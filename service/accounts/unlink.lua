--[[
  Remove an identity from a user, unless it is the last way in.

  KEYS[1]  the user
  ARGV[1]  field of the identity
  ARGV[2]  now, ms

  Returns {"unlinked", the identity}, {"last"} or {"absent"}.
]]
local user, identity = KEYS[1], ARGV[1]

local value = redis.call("HGET", user, identity)
if not value then return {"absent"} end
local ways = redis.call("HEXISTS", user, "pw")
for _, field in ipairs(redis.call("HKEYS", user)) do
  if string.sub(field, 1, 3) == "id:" and field ~= identity then ways = ways + 1 end
end
if ways == 0 then return {"last"} end
redis.call("HDEL", user, identity)
redis.call("HSET", user, "up", ARGV[2])
return {"unlinked", value}

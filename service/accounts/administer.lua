--[[
  Set what admins decide of a user who exists and is not being deleted, only while roles and state still are what the
  caller has read, or are what they are to become. Both together: who may change the one has looked at the other.

  KEYS[1]  the user
  ARGV[1]  roles as read         ARGV[3]  roles to be
  ARGV[2]  "1" if disabled       ARGV[4]  "1" if to be disabled
  ARGV[5]  field, ARGV[6] its new value ("" removes the field), and so on

  Returns "changed", "absent" or "differs". Run again with the same arguments, it says "changed" again.
]]
local user, roles, off, new_roles, new_off = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if redis.call("HEXISTS", user, "email") == 0 or redis.call("HEXISTS", user, "gone") == 1 then return "absent" end
local has_roles, is_off = redis.call("HGET", user, "roles") or "user", redis.call("HGET", user, "off") or ""
if not (has_roles == roles and is_off == off) and not (has_roles == new_roles and is_off == new_off) then
  return "differs"
end
redis.call("HSET", user, "roles", new_roles)
if new_off == "1" then redis.call("HSET", user, "off", "1") else redis.call("HDEL", user, "off") end
for i = 5, #ARGV, 2 do
  if ARGV[i + 1] == "" then
    redis.call("HDEL", user, ARGV[i])
  else
    redis.call("HSET", user, ARGV[i], ARGV[i + 1])
  end
end
return "changed"

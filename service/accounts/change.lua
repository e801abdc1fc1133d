--[[
  Change fields of a user who exists and is not being deleted, optionally only while one field still is what the caller
  has read, or is what it is to become.

  KEYS[1]  the user
  ARGV[1]  field that must not have changed, or ""
  ARGV[2]  its value as read
  ARGV[3]  field, ARGV[4] its new value ("" removes the field), and so on

  Returns "changed", "absent" or "differs". Run again with the same arguments, it says "changed" again.
]]
local user, guarded, expected = KEYS[1], ARGV[1], ARGV[2]

if redis.call("HEXISTS", user, "email") == 0 or redis.call("HEXISTS", user, "gone") == 1 then return "absent" end
local current = guarded ~= "" and (redis.call("HGET", user, guarded) or "")
local agreed = not current or current == expected
for i = 3, #ARGV, 2 do
  if ARGV[i] == guarded and ARGV[i + 1] == current then agreed = true end
end
if not agreed then return "differs" end
for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == "" then
    redis.call("HDEL", user, ARGV[i])
  else
    redis.call("HSET", user, ARGV[i], ARGV[i + 1])
  end
end
return "changed"

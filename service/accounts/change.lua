--[[
  Change fields of a user who exists, optionally only while one field still is what the caller has read.

  KEYS[1]  the user
  ARGV[1]  field that must not have changed, or ""
  ARGV[2]  its value as read
  ARGV[3]  field, ARGV[4] its new value ("" removes the field), and so on

  Returns "changed", "absent" or "differs". Run again with the same arguments, it says "changed" again.
]]
local user, guarded, expected = KEYS[1], ARGV[1], ARGV[2]

if redis.call("EXISTS", user) == 0 then return "absent" end
local current = guarded ~= "" and (redis.call("HGET", user, guarded) or "")
if current and current ~= expected then
  for i = 3, #ARGV, 2 do
    if ARGV[i] == guarded and ARGV[i + 1] == current then return "changed" end
  end
  return "differs"
end
for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == "" then
    redis.call("HDEL", user, ARGV[i])
  else
    redis.call("HSET", user, ARGV[i], ARGV[i + 1])
  end
end
return "changed"

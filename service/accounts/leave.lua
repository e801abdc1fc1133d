--[[
  Let an admin go, unless that would leave none.

  KEYS[1]  the active admins
  ARGV[1]  user id of the one who goes
  ARGV[2]  and so on: user ids of others whose records say that they are active admins

  Returns 1, or 0 when none of the others is there. Run again, it answers the same.
]]
local admins, leaver = KEYS[1], ARGV[1]

for i = 2, #ARGV do
  if ARGV[i] ~= leaver and redis.call("SISMEMBER", admins, ARGV[i]) == 1 then
    redis.call("SREM", admins, leaver)
    return 1
  end
end
return 0

--[[
  End every session of a user who is being deleted and keep nothing of them but the epoch, grown: a sign-in that was
  under way compares itself with it.

  KEYS[1]  sessions of the user
  ARGV[1]  how long the epoch must stay, ms

  Returns {session id, session id, ...}.
]]
local sessions = KEYS[1]

local ended = {}
for _, name in ipairs(redis.call("HKEYS", sessions)) do
  if name ~= "epoch" and string.sub(name, 1, 1) ~= "-" and not string.find(name, ".", 1, true) then
    ended[#ended + 1] = name
  end
end
local epoch = redis.call("HGET", sessions, "epoch") or "0"
redis.call("DEL", sessions)
redis.call("HSET", sessions, "epoch", string.format("%.0f", tonumber(epoch) + 1))
redis.call("PEXPIRE", sessions, ARGV[1])
return ended

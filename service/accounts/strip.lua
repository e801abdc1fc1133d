--[[
  Take every way in, and everything else its maker put there, from an account whose email was never verified.

  KEYS[1]  the user
  ARGV[1]  now, ms

  Returns {"stripped", identity, identity, ...}, {"verified"} or {"absent"}. Run again, it strips what is left.
]]
local user = KEYS[1]

if redis.call("HEXISTS", user, "email") == 0 or redis.call("HEXISTS", user, "gone") == 1 then return {"absent"} end
if redis.call("HEXISTS", user, "ok") == 1 then return {"verified"} end
local answer = {"stripped"}
local fields = redis.call("HGETALL", user)
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, 3) == "id:" then
    answer[#answer + 1] = fields[i + 1]
    redis.call("HDEL", user, fields[i])
  elseif string.sub(fields[i], 1, 5) == "once." then
    redis.call("HDEL", user, fields[i])
  end
end
redis.call("HDEL", user, "pw", "first", "last", "name", "pic", "new")
redis.call("HSET", user, "up", ARGV[1])
return answer

--[[
  Take a one-time token and write what it was for, in one step: of many who bring it, one has it.

  KEYS[1]  the user
  ARGV[1]  field that names the latest token of its type
  ARGV[2]  digest of the token
  ARGV[3]  number of this attempt, random
  ARGV[4]  "1" when an account that was never verified loses its identities elsewhere
  ARGV[5]  field, ARGV[6] its new value ("" removes the field), and so on

  Returns {"taken", identity, identity, ...} with the identities that were removed, or {"invalid"}.
  Run again with the same attempt, it says "taken" again.
]]
local user, field, digest, attempt, strips = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4] == "1"

if redis.call("HGET", user, "once.spent") == attempt then return {"taken"} end
if redis.call("HEXISTS", user, "email") == 0 or redis.call("HEXISTS", user, "gone") == 1 then return {"invalid"} end
if redis.call("HGET", user, field) ~= digest or redis.call("HEXISTS", user, "off") == 1 then return {"invalid"} end
local answer = {"taken"}
if strips and redis.call("HEXISTS", user, "ok") == 0 then
  local fields = redis.call("HGETALL", user)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 3) == "id:" then
      answer[#answer + 1] = fields[i + 1]
      redis.call("HDEL", user, fields[i])
    end
  end
end
for i = 5, #ARGV, 2 do
  if ARGV[i + 1] == "" then
    redis.call("HDEL", user, ARGV[i])
  else
    redis.call("HSET", user, ARGV[i], ARGV[i + 1])
  end
end
redis.call("HDEL", user, field)
redis.call("HSET", user, "once.spent", attempt)
return answer

--[[
  Begin to delete a user: from now on there is no way in, and nothing is added to the record any more. Not while the roles
  or the state are others than the caller has seen: it may be the last admin by now.

  KEYS[1]  the user
  ARGV[1]  mark of this call: the time and something of its own
  ARGV[2]  roles as read
  ARGV[3]  "1" if disabled

  Returns {"began" or "doomed", field, value, ...}: whether this call was the first, and the record; {"absent"};
  or {"differs"}. Run again with the same arguments, it gives the same.
]]
local user, mark, roles, off = KEYS[1], ARGV[1], ARGV[2], ARGV[3]

if redis.call("HEXISTS", user, "email") == 0 then return {"absent"} end
if redis.call("HEXISTS", user, "gone") == 0 then
  local has_roles, is_off = redis.call("HGET", user, "roles") or "user", redis.call("HGET", user, "off") or ""
  if has_roles ~= roles or is_off ~= off then return {"differs"} end
  redis.call("HSET", user, "gone", mark, "off", "1")
end
local answer = redis.call("HGETALL", user)
table.insert(answer, 1, redis.call("HGET", user, "gone") == mark and "began" or "doomed")
return answer

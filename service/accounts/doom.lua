--[[
  Begin to delete a user: from now on there is no way in, and nothing is added to the record any more.

  KEYS[1]  the user
  ARGV[1]  mark of this call: the time and something of its own

  Returns {1 or 0, field, value, ...}: whether this call was the first, and the record; {0} when there is none. Run again
  with the same mark, it gives the same.
]]
local user = KEYS[1]

if redis.call("HEXISTS", user, "email") == 0 then return {0} end
redis.call("HSETNX", user, "gone", ARGV[1])
redis.call("HSET", user, "off", "1")
local answer = redis.call("HGETALL", user)
table.insert(answer, 1, redis.call("HGET", user, "gone") == ARGV[1] and 1 or 0)
return answer

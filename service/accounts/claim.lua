--[[
  Claim a lookup for a user, for a while or for good. First come, first served; one's own claim may be renewed.

  KEYS[1]  the lookup
  ARGV[1]  user id
  ARGV[2]  how long the claim holds, ms; 0 for good
  ARGV[3]  id of a holder who gives way, unless it has the lookup for good; or ""

  Returns the id of the user who has it now.
]]
local lookup, user, holds, yielding = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]

local holder = redis.call("GET", lookup)
if holder and holder ~= user and (holder ~= yielding or redis.call("PTTL", lookup) == -1) then return holder end
if holds > 0 then
  redis.call("SET", lookup, user, "PX", ARGV[2])
else
  redis.call("SET", lookup, user)
end
return user

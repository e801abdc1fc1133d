--[[
  Claim a lookup for a user, for a while or for good. First come, first served.

  KEYS[1]  the lookup
  ARGV[1]  user id
  ARGV[2]  how long the claim holds, ms; 0 for good
  ARGV[3]  id of a holder who gives way, because the lookup leads to nothing of theirs; or ""
  ARGV[4]  "1" if that holder gives way even where the lookup is theirs for good

  Returns the id of the user who has it now. Who has claimed it from another a moment ago gives way to nobody: whose it
  is is being decided.
]]
local lookup, user, holds, yielding, for_good = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4] == "1"
local DECIDED_WITHIN = 5000 -- ms

local holder = redis.call("GET", lookup)
if holder and holder ~= user then
  if holder ~= yielding then return holder end
  local lapses = redis.call("PTTL", lookup)
  if not for_good and lapses == -1 then return holder end
  -- A claim from another holds twice as long: that is how it is known.
  if holds > 0 and lapses > 2 * holds - DECIDED_WITHIN then return holder end
end
if holds == 0 then
  redis.call("SET", lookup, user)
elseif holder ~= user then
  redis.call("SET", lookup, user, "PX", holder and 2 * holds or holds)
end
return user

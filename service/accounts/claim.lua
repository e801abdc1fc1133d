--[[
  Claim a lookup for a user, for a while or for good. First come, first served.

  KEYS[1]  the part with the lookup
  ARGV[1]  the lookup, a field of it: the user id, and for a claim until when it holds, ms
  ARGV[2]  user id
  ARGV[3]  how long the claim holds, ms; 0 for good
  ARGV[4]  id of a holder who gives way, because the lookup leads to nothing of theirs; or ""
  ARGV[5]  "1" if that holder gives way even where the lookup is theirs for good

  Returns the id of the user who has it now. Who has claimed it from another a moment ago gives way to nobody: whose it
  is is being decided.
]]
local part, lookup, user = KEYS[1], ARGV[1], ARGV[2]
local holds, yielding, for_good = tonumber(ARGV[3]), ARGV[4], ARGV[5] == "1"
local DECIDED_WITHIN = 5000 -- ms

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local holder, claimed_until = string.match(redis.call("HGET", part, lookup) or "", "^(%S+) ?(%d*)$")
local lapses = claimed_until and tonumber(claimed_until)
if lapses and lapses <= now then holder, lapses = nil, nil end
if holder and holder ~= user then
  if holder ~= yielding then return holder end
  if not for_good and not lapses then return holder end
  -- A claim from another holds twice as long: that is how it is known.
  if holds > 0 and lapses and lapses - now > 2 * holds - DECIDED_WITHIN then return holder end
end
if holds == 0 then
  redis.call("HSET", part, lookup, user)
elseif holder ~= user then
  redis.call("HSET", part, lookup, user .. " " .. string.format("%.0f", now + (holder and 2 * holds or holds)))
end
return user

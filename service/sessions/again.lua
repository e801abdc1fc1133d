--[[
  End sessions that had been ended before: a master that took over may not have heard of it. May be said at any later
  moment, for it ends what it names and nothing else, and the epoch only grows.
  Deletes before it writes, so that it works when Redis is full.

  KEYS[1]  sessions of the user
  ARGV[1]  reason, one word
  ARGV[2]  lifetime of tombstones, ms
  ARGV[3]  epoch that there must be at least
  ARGV[4]  how long the epoch must outlive the last session, ms
  ARGV[5]  jti of an access token that was revoked with them, or ""
  ARGV[6]  when that token expires, ms
  ARGV[7], ...  session ids

  Returns how many of the sessions were there.
]]
local sessions, reason, mourning, epoch = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local afterlife, jti, jti_expires = tonumber(ARGV[4]), ARGV[5], ARGV[6]

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function whole(number) return string.format("%.0f", number) end

local found = {}
for i = 7, #ARGV do
  if redis.call("HDEL", sessions, ARGV[i]) > 0 then found[#found + 1] = ARGV[i] end
end
local behind = tonumber(redis.call("HGET", sessions, "epoch") or "0") < epoch
for _, sid in ipairs(found) do
  redis.call("HSET", sessions, sid .. ".end", whole(now + mourning) .. " " .. reason)
end
if jti ~= "" and #found > 0 then redis.call("HSET", sessions, "-" .. jti, jti_expires .. " " .. reason) end
if behind then redis.call("HSET", sessions, "epoch", whole(epoch)) end
-- Removing the last field has removed the key, and its time to live with it.
local lives = math.max(#found > 0 and mourning or 0, behind and afterlife or 0)
if redis.call("PTTL", sessions) < lives then redis.call("PEXPIRE", sessions, whole(lives)) end
return #found

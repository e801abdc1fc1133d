--[[
  End one session of a user, or every one, and leave a tombstone that says why.
  Deletes before it writes, so that it works when Redis is full.

  KEYS[1]  sessions of the user
  ARGV[1]  session id, or "*" for every one
  ARGV[2]  session id to spare, or ""
  ARGV[3]  reason, one word
  ARGV[4]  lifetime of tombstones, ms
  ARGV[5]  "1" to grow the epoch, which makes every older access token stale
  ARGV[6]  jti of an access token to revoke with the session, or ""
  ARGV[7]  when that token expires, ms
  ARGV[8]  how long the epoch must outlive the last session, ms

  Returns {sessions ended, epoch, now, {session id, rotations, session id, rotations, ...}}.
  A session that had been ended before counts as ended.
]]
local sessions, sid, spared, reason = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local mourning, grow, jti, jti_expires, afterlife = tonumber(ARGV[4]), ARGV[5] == "1", ARGV[6], ARGV[7], ARGV[8]

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function whole(number) return string.format("%.0f", number) end

local doomed = {}
if sid ~= "*" then
  if redis.call("HEXISTS", sessions, sid) == 1 then doomed[1] = sid end
else
  for _, name in ipairs(redis.call("HKEYS", sessions)) do
    local plain = name ~= "epoch" and string.sub(name, 1, 1) ~= "-" and not string.find(name, ".", 1, true)
    if plain and name ~= spared then doomed[#doomed + 1] = name end
  end
end

local told = {}
for _, name in ipairs(doomed) do
  told[#told + 1] = name
  told[#told + 1] = string.match(redis.call("HGET", sessions, name), "^%d+")
  redis.call("HDEL", sessions, name)
end
for _, name in ipairs(doomed) do
  redis.call("HSET", sessions, name .. ".end", whole(now + mourning) .. " " .. reason)
end
if jti ~= "" and #doomed > 0 then redis.call("HSET", sessions, "-" .. jti, jti_expires .. " " .. reason) end
if grow then redis.call("HINCRBY", sessions, "epoch", 1) end
-- Removing the last field has removed the key, and its time to live with it.
local lives = math.max(#doomed > 0 and mourning or 0, grow and tonumber(afterlife) or 0)
if redis.call("PTTL", sessions) < lives then redis.call("PEXPIRE", sessions, whole(lives)) end

local ended = #doomed
if ended == 0 and sid ~= "*" then ended = redis.call("HEXISTS", sessions, sid .. ".end") end
return {ended, redis.call("HGET", sessions, "epoch") or "0", whole(now), told}

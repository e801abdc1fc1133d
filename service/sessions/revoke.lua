--[[
  Revoke one access token of a session that lives on. Prunes what has expired of its like on the way.

  KEYS[1]  sessions of the user
  ARGV[1]  session id
  ARGV[2]  jti of the token
  ARGV[3]  until when the token could be used, ms
  ARGV[4]  reason, one word

  Returns {"revoked" or "again", now}: whether it is this call that did it. {"over", now} without the session or after
  the token's time: it is refused anyway, and nothing is written.
]]
local sessions, sid, jti, until_, reason = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local verdict = "over"
if redis.call("HEXISTS", sessions, sid) == 1 and tonumber(until_) > now then
  verdict = redis.call("HEXISTS", sessions, "-" .. jti) == 1 and "again" or "revoked"
end
if verdict == "revoked" then
  local gone = {}
  local fields = redis.call("HGETALL", sessions)
  for i = 1, #fields, 2 do
    local revoked = string.sub(fields[i], 1, 1) == "-"
    if revoked and tonumber(string.match(fields[i + 1], "^%d+")) <= now then gone[#gone + 1] = fields[i] end
  end
  for _, name in ipairs(gone) do redis.call("HDEL", sessions, name) end
  redis.call("HSET", sessions, "-" .. jti, until_ .. " " .. reason)
end
return {verdict, string.format("%.0f", now)}

--[[
  Revoke one access token of a session that lives on. Prunes what has expired of its like on the way.

  KEYS[1]  sessions of the user
  ARGV[1]  session id
  ARGV[2]  jti of the token
  ARGV[3]  until when the token could be used, ms
  ARGV[4]  reason, one word

  Returns now. Without the session the token is refused anyway, and nothing is written.
]]
local sessions, sid, jti, until_, reason = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if redis.call("HEXISTS", sessions, sid) == 1 and tonumber(until_) > now then
  local gone = {}
  local fields = redis.call("HGETALL", sessions)
  for i = 1, #fields, 2 do
    local revoked = string.sub(fields[i], 1, 1) == "-"
    if revoked and tonumber(string.match(fields[i + 1], "^%d+")) <= now then gone[#gone + 1] = fields[i] end
  end
  for _, name in ipairs(gone) do redis.call("HDEL", sessions, name) end
  redis.call("HSET", sessions, "-" .. jti, until_ .. " " .. reason)
end
return string.format("%.0f", now)

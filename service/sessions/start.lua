--[[
  Open a session, unless the account changed since the caller read it. Prunes what has expired on the way.

  KEYS[1]  sessions of the user
  ARGV[1]  session id, new                 ARGV[5]  device: address and user agent
  ARGV[2]  epoch the caller has read       ARGV[6]  idle lifetime, ms
  ARGV[3]  amr, as one word                ARGV[7]  absolute lifetime, ms
  ARGV[4]  sessions a user may have        ARGV[8]  lifetime of tombstones, ms

  Returns {"started", now, expires at, session id that made room, ...} or {"overtaken", now}. Run again with the same id, it changes nothing more.
]]
local sessions, sid, expected, amr = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local most, device = tonumber(ARGV[4]), ARGV[5]
local idle, absolute, mourning = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function whole(number) return string.format("%.0f", number) end

local existing = redis.call("HGET", sessions, sid)
if existing then
  return {"started", whole(now), string.match(existing, "^%S+ (%d+)")}
end
if (redis.call("HGET", sessions, "epoch") or "0") ~= expected then
  return {"overtaken", whole(now)}
end

local living, tombstones, gone = {}, {}, {}
local fields = redis.call("HGETALL", sessions)
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if string.sub(name, 1, 1) == "-" then
    if tonumber(string.match(value, "^%d+")) <= now then gone[#gone + 1] = name end
  elseif string.sub(name, -4) == ".end" then
    local until_ = tonumber(string.match(value, "^%d+"))
    if until_ <= now then gone[#gone + 1] = name else tombstones[#tombstones + 1] = {until_, name} end
  elseif name ~= "epoch" then
    local expires_at, started_at = string.match(value, "^%S+ (%d+) (%d+)")
    if tonumber(expires_at) <= now or started_at + absolute <= now then
      gone[#gone + 1] = name
    else
      living[#living + 1] = {tonumber(started_at), name}
    end
  end
end

local function oldest_first(a, b) return a[1] < b[1] end
table.sort(living, oldest_first)
table.sort(tombstones, oldest_first)
for i = 1, #tombstones - most do gone[#gone + 1] = tombstones[i][2] end
for _, name in ipairs(gone) do redis.call("HDEL", sessions, name) end -- one by one: unpack() has its limit
local answer = {"started", whole(now)}
for i = 1, #living - most + 1 do
  local replaced = living[i][2]
  redis.call("HDEL", sessions, replaced)
  redis.call("HSET", sessions, replaced .. ".end", whole(now + mourning) .. " replaced")
  answer[#answer + 1] = replaced
end

local expires_at = math.min(now + idle, now + absolute)
redis.call("HSET", sessions, sid, "0 " .. whole(expires_at) .. " " .. whole(now) .. " " .. amr .. " " .. device)
local lives = expires_at - now + mourning
if redis.call("PTTL", sessions) < lives then redis.call("PEXPIRE", sessions, whole(lives)) end
table.insert(answer, 3, whole(expires_at))
return answer

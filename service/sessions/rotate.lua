--[[
  Exchange a generation of a session's refresh token for its successor, once. The twin of rule.py.

  KEYS[1]  sessions of the user
  ARGV[1]  session id
  ARGV[2]  generation presented
  ARGV[3]  leeway, ms
  ARGV[4]  "1" when lost answers may be recovered
  ARGV[5]  idle lifetime, ms
  ARGV[6]  absolute lifetime, ms
  ARGV[7]  lifetime of tombstones, ms
  KEYS[2]  a window of the limits, if this is only for a call that is counted there; where all keys are on one server
  ARGV[8]  the name of that call

  Returns {verdict, generation to hand out, now, epoch, expires at, started at, amr}, where verdict is "rotated",
  "replayed", and after "recovered" or "healed" also the device that began the session;
  {"reuse", 0, now, device} when the session was ended for it;
  {"expired", rotations, now} when its time was found to be up; {"ended", 0, now, reason} when there is none (the
  reason may be empty); or {"uncounted"} when nothing was done, for the call is not counted.
]]
local sessions, paid_in, sid, call = KEYS[1], KEYS[2], ARGV[1], ARGV[8]
local generation, leeway, recovery = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == "1"
local idle, absolute, mourning = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local REMEMBERED = 8

if paid_in and not redis.call("ZSCORE", paid_in, call) then return {"uncounted"} end

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function whole(number) return string.format("%.0f", number) end

local function bury(reason)
  redis.call("HDEL", sessions, sid)
  redis.call("HSET", sessions, sid .. ".end", whole(now + mourning) .. " " .. reason)
  -- Removing the last field has removed the key, and its time to live with it.
  if redis.call("PTTL", sessions) < mourning then redis.call("PEXPIRE", sessions, whole(mourning)) end
end

local session = redis.call("HGET", sessions, sid)
if not session then
  local tombstone = redis.call("HGET", sessions, sid .. ".end")
  return {"ended", 0, whole(now), tombstone and string.match(tombstone, " (.*)$") or ""}
end
local issued, past, expires_at, started_at, amr, device =
  string.match(session, "^(%d+)(%S*) (%d+) (%d+) (%S+) (.*)$")
issued = tonumber(issued)
if tonumber(expires_at) <= now or started_at + absolute <= now then
  bury("expired")
  return {"expired", whole(issued), whole(now)}
end

local recent, exchanged = {}, nil
for old, at in string.gmatch(past, "(%d+)@(%d+)") do
  recent[#recent + 1] = {tonumber(old), tonumber(at)}
  if tonumber(old) == generation then exchanged = tonumber(at) end
end

local verdict
if generation == issued then
  verdict, issued = "rotated", generation + 1
elseif generation > issued then
  verdict, issued = "healed", generation + 1
elseif exchanged and now - exchanged <= leeway then
  verdict = "replayed"
elseif exchanged and recovery then
  verdict, issued = "recovered", issued + 1
else
  bury("reuse")
  return {"reuse", 0, whole(now), device}
end

if verdict ~= "replayed" then
  local kept = {}
  for _, entry in ipairs(recent) do
    if entry[1] ~= generation and now - entry[2] <= leeway then
      kept[#kept + 1] = whole(entry[1]) .. "@" .. whole(entry[2])
    end
  end
  kept[#kept + 1] = whole(generation) .. "@" .. whole(now)
  expires_at = math.min(now + idle, started_at + absolute)
  local lineage = whole(issued) .. "," .. table.concat(kept, ",", math.max(1, #kept - REMEMBERED + 1))
  redis.call("HSET", sessions, sid,
    lineage .. " " .. whole(expires_at) .. " " .. started_at .. " " .. amr .. " " .. device)
  local lives = expires_at - now + mourning
  if redis.call("PTTL", sessions) < lives then redis.call("PEXPIRE", sessions, whole(lives)) end
end

local answer = {verdict, whole(issued), whole(now), redis.call("HGET", sessions, "epoch") or "0",
  whole(tonumber(expires_at)), started_at, amr}
if verdict == "recovered" or verdict == "healed" then answer[8] = device end
return answer

--[[
  Count an attempt on a subject in an exact sliding window, and say once in a window when there are so many that it is
  a burst. No more are kept than that takes.

  KEYS[1]  attempts on the subject; once a burst has been told that alone, until the window is over
  ARGV[1]  attempts that are a burst
  ARGV[2]  length of the window, ms
  ARGV[3]  name of this attempt; the same name counts once
  ARGV[4]  what else it was about, which may be ""

  Returns {"burst", how many different things the attempts were about} when this one makes it a burst, {"told", for how
  many ms more} when that has been told already, or {"counted", 0}.
]]
local attempts, enough, length, name, about = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function whole(number) return string.format("%.0f", number) end

redis.call("ZREMRANGEBYSCORE", attempts, "-inf", whole(now - length))
local first, since = unpack(redis.call("ZRANGE", attempts, 0, 0, "WITHSCORES"))
if first and string.sub(first, 1, 1) == "!" then
  local maker, different = string.match(first, "^!(%S+) (%d+)$")
  if maker == name then return {"burst", tonumber(different)} end
  return {"told", tonumber(since) + length - now}
end

redis.call("ZADD", attempts, whole(now), name .. " " .. about)
redis.call("PEXPIRE", attempts, whole(length))
if redis.call("ZCARD", attempts) < enough then return {"counted", 0} end

local seen, different = {}, 0
for _, attempt in ipairs(redis.call("ZRANGE", attempts, 0, -1)) do
  local thing = string.match(attempt, " (.*)$")
  if thing ~= "" and not seen[thing] then
    seen[thing], different = true, different + 1
  end
end
redis.call("DEL", attempts)
redis.call("ZADD", attempts, whole(now), "!" .. name .. " " .. different)
redis.call("PEXPIRE", attempts, whole(length))
return {"burst", different}

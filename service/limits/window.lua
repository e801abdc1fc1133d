--[[
  Count a call in an exact sliding window, if it still fits. A refused call adds nothing.

  KEYS[1]  the window
  ARGV[1]  calls allowed
  ARGV[2]  length of the window, ms
  ARGV[3]  name of this call; the same name counts once, and "" only looks

  Returns {allowed 0 or 1, calls left, ms until the next call leaves the window}.
]]
local window, allowed, length, call = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function whole(number) return string.format("%.0f", number) end

redis.call("ZREMRANGEBYSCORE", window, "-inf", whole(now - length))
local used = redis.call("ZCARD", window)
local verdict = 0
if redis.call("ZSCORE", window, call) then
  verdict = 1
elseif used < allowed and call == "" then
  verdict = 1
elseif used < allowed then
  redis.call("ZADD", window, whole(now), call)
  redis.call("PEXPIRE", window, whole(length))
  verdict, used = 1, used + 1
end

local oldest = redis.call("ZRANGE", window, 0, 0, "WITHSCORES")
return {verdict, math.max(0, allowed - used), oldest[2] and tonumber(oldest[2]) + length - now or 0}

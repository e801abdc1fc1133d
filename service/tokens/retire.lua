--[[
  Take a key out of the ring. If it was the one that signs, another does at once: the one that waits, or a new one.

  KEYS[1]  the ring
  ARGV[1]  kid of the key to retire
  ARGV[2]  algorithm that this installation signs with
  ARGV[3]  kid of a new key of that algorithm
  ARGV[4]  the new key, sealed

  Returns "retired", or "unknown" when the ring has no such key.
]]
local ring, kid, algorithm, new_kid, sealed = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function whole(number) return string.format("%.0f", number) end

local retired = redis.call("HGET", ring, kid)
if not retired then return "unknown" end
local kind = string.match(retired, "^%S+")

local signing, waiting
local fields = redis.call("HGETALL", ring)
for i = 1, #fields, 2 do
  local its_kind, from, rest = string.match(fields[i + 1], "^(%S+) (%d+) (%S+)$")
  if its_kind == kind then
    local key = {kid = fields[i], from = tonumber(from), sealed = rest}
    if key.from <= now then
      if not signing or key.from > signing.from then signing = key end
    elseif not waiting or key.from < waiting.from then
      waiting = key
    end
  end
end
if signing and signing.kid == kid then
  if waiting then
    redis.call("HSET", ring, waiting.kid, kind .. " " .. whole(now) .. " " .. waiting.sealed)
  elseif kind == algorithm then
    redis.call("HSET", ring, new_kid, kind .. " " .. whole(now) .. " " .. sealed)
  end
elseif not signing and waiting.kid == kid and kind == algorithm then
  redis.call("HSET", ring, new_kid, kind .. " " .. whole(now) .. " " .. sealed)
end
redis.call("HDEL", ring, kid)
return "retired"

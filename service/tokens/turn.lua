--[[
  Turn the ring: drop the keys whose last token is over, and add one where one is missing, due or asked for.

  KEYS[1]  the ring
  ARGV[1]  algorithm
  ARGV[2]  kid of a key that could be added, or ""
  ARGV[3]  when that key began to sign, ms; "0" for one that was made for this call
  ARGV[4]  that key, sealed
  ARGV[5]  how long a key signs, ms; "0" for ever
  ARGV[6]  how long a key is published before it signs, ms
  ARGV[7]  how long a key is kept after its successor has begun to sign, ms
  ARGV[8]  "1" to add one now, unless one waits already

  A key that has signed before is taken into an empty ring only: Redis had forgotten it. One that is missing from a
  ring with others was retired.

  Returns {verdict, now, kid, entry, kid, entry, ...}: "kept", "added", or "make": come again with a new key.
]]
local ring, algorithm, kid, began, sealed = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local rotation, lead, afterwards, asked = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == "1"

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function whole(number) return string.format("%.0f", number) end

local function answer(verdict)
  local told = {verdict, whole(now)}
  for _, part in ipairs(redis.call("HGETALL", ring)) do told[#told + 1] = part end
  return told
end

local generations = {}
local fields = redis.call("HGETALL", ring)
for i = 1, #fields, 2 do
  local kind, from = string.match(fields[i + 1], "^(%S+) (%d+) ")
  generations[kind] = generations[kind] or {}
  table.insert(generations[kind], {tonumber(from), fields[i]})
end
for _, keys in pairs(generations) do
  table.sort(keys, function(a, b) return a[1] < b[1] end)
  for i = 1, #keys - 1 do
    if keys[i + 1][1] + afterwards <= now then redis.call("HDEL", ring, keys[i][2]) end
  end
end

local mine = generations[algorithm]
local newest = mine and mine[#mine][1]
local due = not newest or (rotation > 0 and newest + rotation - lead <= now) or (asked and newest <= now)
if kid ~= "" and redis.call("HEXISTS", ring, kid) == 1 then
  if began == "0" then return answer("added") end
  return answer(due and "make" or "kept")
end
if not due then return answer("kept") end

local remembered = kid ~= "" and began ~= "0"
if remembered and #fields == 0 then
  redis.call("HSET", ring, kid, algorithm .. " " .. began .. " " .. sealed)
  return answer("added")
end
if kid == "" or remembered then return answer("make") end
redis.call("HSET", ring, kid, algorithm .. " " .. whole(newest and now + lead or now) .. " " .. sealed)
return answer("added")

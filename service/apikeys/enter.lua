--[[
  Enter a key in the list of its owner, unless that is full. Prunes what has expired on the way.

  KEYS[1]  keys of the user
  ARGV[1]  id of the key, new        ARGV[3]  how long it lives, ms; "0" for ever
  ARGV[2]  digest of the key         ARGV[4]  keys a user may have

  Returns {"entered", made, expires or "0"} or {"full", now, "0"}. Run again with the same id, it changes nothing more.
]]
local keys, id, digest, lifetime, most = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function whole(number) return string.format("%.0f", number) end

local count, last, forever, gone = 0, 0, lifetime == 0, {}
local fields = redis.call("HGETALL", keys)
for i = 1, #fields, 2 do
  local made, expires = string.match(fields[i + 1], "^%S+ (%d+) (%d+)$")
  if fields[i] == id then return {"entered", made, expires} end
  if expires ~= "0" and tonumber(expires) <= now then
    gone[#gone + 1] = fields[i]
  else
    count, last, forever = count + 1, math.max(last, tonumber(expires)), forever or expires == "0"
  end
end
for _, name in ipairs(gone) do redis.call("HDEL", keys, name) end
if count >= most then return {"full", whole(now), "0"} end

local expires = lifetime == 0 and 0 or now + lifetime
redis.call("HSET", keys, id, digest .. " " .. whole(now) .. " " .. whole(expires))
if forever then
  redis.call("PERSIST", keys)
else
  redis.call("PEXPIREAT", keys, whole(math.max(last, expires)))
end
return {"entered", whole(now), whole(expires)}

--[[
  Note when a key was used last, unless it was revoked meanwhile or somebody has noted a later use.

  KEYS[1]  the record
  ARGV[1]  when, ms

  Returns 1, or 0 when the key is gone.
]]
local record, used = KEYS[1], ARGV[1]

if redis.call("EXISTS", record) == 0 then return 0 end
if tonumber(redis.call("HGET", record, "used") or "0") < tonumber(used) then redis.call("HSET", record, "used", used) end
return 1

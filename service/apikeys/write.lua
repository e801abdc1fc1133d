--[[
  Write a key's record; it goes when the key expires.

  KEYS[1]  the record
  ARGV[1]  when the key expires, ms; "0" for never
  ARGV[2]  and so on: field, value, field, value, ...

  Returns "written".
]]
local record, expires = KEYS[1], ARGV[1]

redis.call("HSET", record, unpack(ARGV, 2))
if expires ~= "0" then redis.call("PEXPIREAT", record, expires) end
return "written"

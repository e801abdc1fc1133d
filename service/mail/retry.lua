--[[
  Have a parked errand tried again. It stays where it is and becomes a pending one, which `take.lua` hands out at once.

  KEYS[1]  the parked errands
  ARGV[1]  name of the consumer group
  ARGV[2]  id of the entry
  ARGV[3]  how long a try may take, ms: one that began within that time goes on alone
  ARGV[4]  and so on: ids of other entries of the same errand, which a crash has parked twice; they go

  Returns "waiting" or "absent". Run again, by anybody, it changes nothing and answers the same until the errand is done.
]]
local parked, group, entry, under_way = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])

if #redis.call("XRANGE", parked, entry, entry) == 0 then return "absent" end
redis.pcall("XGROUP", "CREATE", parked, group, "0") -- an error where it is there already
for i = 4, #ARGV do
  redis.call("XACK", parked, group, ARGV[i])
  redis.call("XDEL", parked, ARGV[i])
end
-- Given out at the beginning of time, so that its wait is over; not at 0, which Redis 8.4 takes for "never".
local pending = redis.call("XPENDING", parked, group, entry, entry, 1)[1]
if not pending then
  redis.call("XCLAIM", parked, group, "nobody", 0, entry, "TIME", 1, "RETRYCOUNT", 0, "FORCE", "JUSTID")
elseif tonumber(pending[3]) >= under_way then
  redis.call("XCLAIM", parked, group, "nobody", 0, entry, "TIME", 1, "RETRYCOUNT", pending[4], "JUSTID")
end
return "waiting"

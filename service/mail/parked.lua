--[[
  List parked errands, the latest first, each with what becomes of it.

  KEYS[1]  the parked errands
  ARGV[1]  name of the consumer group
  ARGV[2]  where to begin: "+", or "(" and an id
  ARGV[3]  how many at most

  Returns {{id, tries since it was asked for again or -1, {field, value, ...}}, ...}.
]]
local parked, group, from, most = KEYS[1], ARGV[1], ARGV[2], ARGV[3]

local listed = {}
for _, entry in ipairs(redis.call("XREVRANGE", parked, from, "-", "COUNT", most)) do
  local pending = redis.pcall("XPENDING", parked, group, entry[1], entry[1], 1) -- an error where there is no group
  local tries = not pending.err and pending[1] and tonumber(pending[1][4]) or -1
  listed[#listed + 1] = {entry[1], tries, entry[2]}
end
return listed

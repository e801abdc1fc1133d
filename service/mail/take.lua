--[[
  Hand errands to one instance: those whose wait is over, then new ones. Makes the group where there is none.

  KEYS[1]  the outbox, or the parked       ARGV[3]  how many at most
  ARGV[1]  name of the consumer group      ARGV[4]  "1" to hand out new ones, "0" for pending ones alone
  ARGV[2]  name of this instance           ARGV[5]  wait after the first try, ms; ARGV[6] after the second, and so on

  Returns {{id, number of this try, {field, value, ...}}, ...}. Run again, it hands out others: those of before come
  back by waiting.
]]
local outbox, group, consumer, most, new = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == "1"
local PAGE, PAGES = 100, 50

if redis.call("EXISTS", outbox) == 0 then return {} end
redis.pcall("XGROUP", "CREATE", outbox, group, "0") -- an error where it is there already
local taken = {}

local from = "-"
for _ = 1, PAGES do
  local pending = redis.call("XPENDING", outbox, group, from, "+", PAGE)
  for _, entry in ipairs(pending) do
    local id, idle, tries = entry[1], tonumber(entry[3]), tonumber(entry[4])
    local wait = tonumber(ARGV[4 + math.max(1, math.min(tries, #ARGV - 4))])
    if #taken < most and idle >= wait then
      local claimed = redis.call("XCLAIM", outbox, group, consumer, wait, id, "RETRYCOUNT", tries + 1)[1]
      if claimed then taken[#taken + 1] = {id, tries + 1, claimed[2]} end
    end
    from = "(" .. id
  end
  if #pending < PAGE or #taken == most then break end
end

if new and #taken < most then
  local streams = redis.pcall("XREADGROUP", "GROUP", group, consumer, "COUNT", most - #taken, "STREAMS", outbox, ">")
  if streams and not streams.err and streams[1] then
    local entries = type(streams[1]) == "table" and streams[1][2] or streams[2] -- a list of pairs, or a flat map
    for _, entry in ipairs(entries) do taken[#taken + 1] = {entry[1], 1, entry[2]} end
  end
end
return taken

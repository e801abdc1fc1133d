--[[
  A page of an index, the highest score first, from a place on. Entries of one score stand in the order of their ids.

  KEYS[1]  the index
  ARGV[1]  score of the last entry that was seen, "" at the beginning
  ARGV[2]  its id; it need not be there any more
  ARGV[3]  how many entries

  Returns the entries, each as its id followed by its score.
]]
local index, at, id, count = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])

-- Redis orders by byte; Lua's own `<` would go by the locale of the server.
local function before(one, other)
  for place = 1, math.min(#one, #other) do
    local here, there = one:byte(place), other:byte(place)
    if here ~= there then return here < there end
  end
  return #one < #other
end

local from = 0
if at ~= "" then
  -- An import may give one moment to everybody: halve what is of this score instead of walking through it.
  from = redis.call("ZCOUNT", index, "(" .. at, "+inf")
  local till = from + redis.call("ZCOUNT", index, at, at)
  while from < till do
    local middle = math.floor((from + till) / 2)
    if before(redis.call("ZREVRANGE", index, middle, middle)[1], id) then till = middle else from = middle + 1 end
  end
end
return redis.call("ZREVRANGE", index, from, from + count - 1, "WITHSCORES")

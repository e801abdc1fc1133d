--[[
  Count a user agent among the few that an hour has room for. The rarest gives its place, and its count, to a new one,
  so that the frequent ones stay whoever comes, and a count may be too high but never too low (Metwally, Agrawal and
  El Abbadi, "Efficient computation of frequent and top-k elements in data streams"). Run twice it counts twice.

  KEYS[1]  signals of the hour
  ARGV[1]  field of the user agent
  ARGV[2]  what the fields of user agents begin with
  ARGV[3]  how many there is room for
  ARGV[4]  how often it is counted

  Returns the count.
]]
local signals, agent, mark, room, times = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local count = tonumber(redis.call("HGET", signals, agent) or "0")
if count == 0 then
  local others, rarest, least = 0, nil, 0
  local fields = redis.call("HGETALL", signals)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, #mark) == mark then
      others = others + 1
      local count_of_it = tonumber(fields[i + 1])
      if not rarest or count_of_it < least then rarest, least = fields[i], count_of_it end
    end
  end
  if others >= room then
    redis.call("HDEL", signals, rarest)
    count = least
  end
end
redis.call("HSET", signals, agent, count + times)
return count + times

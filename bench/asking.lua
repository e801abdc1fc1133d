-- What wrk asks; `load.py` tells it by the environment. Every request is made before the first is sent, but for
-- refreshes: those take a token from a queue and put its successor there, so each session has one call under way.
local kind, path, pace = os.getenv("KIND"), os.getenv("ASK"), tonumber(os.getenv("PACE"))
local json = {["Content-Type"] = "application/json", ["X-Auth-Mode"] = "token"}
local lines, ready, at, first, last, asked = {}, {}, 0, 1, 0, false

function init()
  for line in io.lines(os.getenv("LINES")) do
    last = last + 1
    lines[last] = line
  end
  math.randomseed(tonumber(os.getenv("SEED")))
  at = math.random(last)  -- of many tokens, other ones each time
  for i, line in ipairs(lines) do
    if kind == "bearer" then
      ready[i] = wrk.format("GET", path, {["Authorization"] = "Bearer " .. line})
    elseif kind == "body" then
      ready[i] = wrk.format("POST", path, json, line)
    elseif kind == "form" then
      ready[i] = wrk.format("POST", path, {["Content-Type"] = "application/x-www-form-urlencoded"}, line)
    end
  end
end

if kind == "refresh" then
  function request()
    local token = lines[first]
    if asked then
      lines[first] = nil
      first = first + 1
    end
    asked = true  -- wrk looks at one request before it sends any
    return wrk.format("POST", path, json, '{"refreshToken": "' .. token .. '"}')
  end

  function response(status, headers, body)
    local token = body:match('"refreshToken": ?"([^"]+)"')
    if token then
      last = last + 1
      lines[last] = token
    end
  end
else
  function request()
    at = at % #ready + 1
    return ready[at]
  end
end

if pace > 0 then
  function delay() return pace end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"answers": %d, "seconds": %.6f, "bytes": %d, "refused": %d, "broken": %d, ' ..
    '"p50": %.3f, "p99": %.3f, "longest": %.3f}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end

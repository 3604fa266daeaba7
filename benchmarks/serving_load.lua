-- wrk's script: one connection a thread, so that a request's time is that thread's. Prints one line of JSON.
-- Arguments: a file with a path a line (or "POST path body-file" lines), and the milliseconds between the requests of a connection (0: at once).
local ffi = require("ffi")
ffi.cdef [[ typedef struct { long s; long ns; } moment; int clock_gettime(int clock, moment *now); ]]
local at = ffi.new("moment")
local threads = {}

local function now()
  ffi.C.clock_gettime(1, at)
  return tonumber(at.s) * 1000 + tonumber(at.ns) / 1e6
end

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  lines, latencies, statuses, sent, period = {}, {}, {}, number * 7, tonumber(args[2])
  for line in io.lines(args[1]) do
    local path, body = line:match("^POST (%S+) (%S+)$")
    if path then
      local file = io.open(body)
      table.insert(lines, wrk.format("POST", path, { ["Content-Type"] = "application/json" }, file:read("*a")))
      file:close()
    else
      table.insert(lines, wrk.format("GET", line))
    end
  end
  math.randomseed(number)
  due = now() + math.random() * period
end

function delay()
  if period == 0 then return 0 end
  local wait = due - now()
  due = math.max(due, now()) + period
  return math.max(0, wait)
end

function request()
  sent = sent + 1
  started = now()
  return lines[sent % #lines + 1]
end

function response(status)
  if status == 200 then table.insert(latencies, now() - started) end
  statuses[tostring(status)] = (statuses[tostring(status)] or 0) + 1
end

function done(summary)
  local all, counts = {}, {}
  for _, thread in ipairs(threads) do
    for _, ms in ipairs(thread:get("latencies")) do table.insert(all, ms) end
    for status, n in pairs(thread:get("statuses")) do counts[status] = (counts[status] or 0) + n end
  end
  table.sort(all)
  local function at_share(share) return all[math.max(1, math.ceil(share * #all))] or -1 end
  local parts = {}
  for status, n in pairs(counts) do table.insert(parts, string.format('"%s": %d', status, n)) end
  local broken = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format(
    '{"seconds": %.3f, "answered": %d, "p50_ms": %.3f, "p99_ms": %.3f, "broken": %d, "statuses": {%s}}\n',
    summary.duration / 1e6, #all, at_share(0.5), at_share(0.99), broken, table.concat(parts, ", ")))
end

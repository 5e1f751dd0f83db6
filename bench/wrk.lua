-- Sends the same chat request again and again; prints what came of it as one line of JSON.
-- With BENCH_VARIED, each carries a number of its own in the place of @NUMBER@.
local file = assert(io.open(assert(os.getenv("BENCH_BODY")), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. assert(os.getenv("BENCH_KEY"))

if os.getenv("BENCH_VARIED") then
  local before, after = string.match(wrk.body, "^(.*)@NUMBER@(.*)$")
  local number = os.time() * 1000000
  function request()
    number = number + 1
    return wrk.format(nil, nil, nil, before .. string.format("%.0f", number) .. after)
  end
end

function done(summary, latency)
  local errors = summary.errors
  local faults = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format('{"answers":%d,"seconds":%.6f,"faults":%d,"p50_s":%.6f,"p99_s":%.6f}', summary.requests,
    summary.duration / 1e6, faults, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end

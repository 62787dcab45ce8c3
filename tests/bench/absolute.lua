-- Sends one request-target and Host, whatever wrk connects to: through a forward proxy the target
-- is in absolute form. The figures come out as one line of JSON.
wrk.path = os.getenv("BENCH_TARGET")
wrk.headers["Host"] = os.getenv("BENCH_HOST")

function done(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      '{"micros": %d, "requests": %d, "bytes": %d, "p50": %d, "p99": %d, ' ..
      '"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}\n',
      summary.duration, summary.requests, summary.bytes,
      latency:percentile(50), latency:percentile(99),
      e.connect, e.read, e.write, e.timeout, e.status))
end

-- Take out of a group's hash what no longer says anything: drained buckets, windows that are over, lost calls.
-- A lost call (its gateway was killed) gives back what it had reserved of budgets; rates refill by themselves. Buckets
-- and windows stay a while longer: calls that began before may still have to settle. A bucket that has given something
-- back stays for a day: a new one in its place would not know, and give back what has drained.
--
-- KEYS[1] hash of a group, as calls.lua describes it
-- KEYS[2] hash of the endpoints; on a cluster there is none, for it lives elsewhere
-- ARGV[1] cursor of HSCAN, "0" to begin
-- ARGV[2] about how many fields to look at
-- Reply: the next cursor; "0" at the end

local BUCKET_US, GIVEN_US, WINDOW_S = 3600000000, 86400000000, 86400
local time = redis.call('TIME')
local server_s = tonumber(time[1])
local server_us = server_s * 1000000 + tonumber(time[2])
local now_us = server_us
local clock = redis.call('HGET', KEYS[1], '@')
if clock then
  local latest, added = string.match(clock, '^(%d+):(%d+)$')
  now_us = math.max(server_us + tonumber(added), tonumber(latest))
end

local function give_back(call)
  for hash, amount, field in string.gmatch(call, '\n([12]):(%d+):([^\n]+)') do
    local key = KEYS[tonumber(hash)]
    local taken = key and redis.call('HGET', key, field)
    if taken then
      redis.call('HSET', key, field, string.format('%.0f', math.max(tonumber(taken) - tonumber(amount), 0)))
    end
  end
end

-- After a write that takes no memory, here of nothing, a server that has none left refuses none: a sweep makes room.
redis.call('HDEL', KEYS[1], '')
local found = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local fields, gone = found[2], {}
for i = 1, #fields, 2 do
  local field, value = fields[i], fields[i + 1]
  local kind = string.sub(field, 1, 1)
  local is_over = false
  if kind == 'r' then
    local drained, given = string.match(value, '^(%d+):?(%d*)$')
    is_over = tonumber(drained) + (given == '' and BUCKET_US or GIVEN_US) <= now_us
  elseif kind == 'b' then
    local resets_at_s = tonumber(string.match(field, '^b(%d+):'))
    is_over = resets_at_s > 0 and resets_at_s + WINDOW_S < server_s
  elseif kind == 'c' then
    is_over = tonumber(string.match(value, '^%d+')) < now_us
    if is_over then give_back(value) end
  end
  if is_over then gone[#gone + 1] = field end
end
if #gone > 0 then redis.call('HDEL', KEYS[1], unpack(gone)) end
return found[1]

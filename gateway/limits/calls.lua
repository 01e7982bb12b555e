-- Admit, end and hold calls: everything is checked first, and charged only then.
--
-- One run carries what one gateway gathered for one lane (a whole Redis; of a cluster, one hash tag). Reads come
-- first and writes last: a server that refuses writes has changed nothing.
--
-- KEYS[1]         the gateway's own key of this lane: "number of its last batch:number of its last end"
-- KEYS[2..1+G]    hashes, one for each group of rules (a team, the endpoints), of fields:
--                   @           clock of the group: "latest microsecond seen:microseconds added to the server's"
--                   r:<rule>    rate: Unix microsecond at which the bucket has drained; then, if it is not 0, ":" and
--                               the microseconds that it has given back from under calls charged since, modulo ERA
--                   b<s>:<rule> budget: micro-dollars spent and reserved until Unix second s (0: ever)
--                   c:<call>    admitted call: microsecond after which it counts as lost; for each rate, in the order
--                               of its asking, ":" and the bucket after its charge, both numbers added up; then a line
--                               "<hash>:<amount>:<field>" for each budget it reserved in (hash 1: this, 2: endpoints),
--                               until that is reset
-- KEYS[2+G..]     sorted sets of leases, one for each parallel rule: call by microsecond of expiry
--
-- ARGV[1] is MessagePack, an array of
--   1  batch      number of this batch, rising; one with a lower number than the last was delayed, and does nothing
--   2  first_end  number of the first of `ends`, rising; those applied before are skipped
--   3  lease_us   life of a lease, microseconds
--   4  call_us    life of a call that nobody holds any more, microseconds
--   5  node_ms    life of KEYS[1], milliseconds
--   6  hash_s     life of a hash that nobody uses, seconds; the first use on each day renews it
--   7  max_us     furthest that a bucket may be filled ahead, microseconds
--   8  groups     {{field, ...}, ...}: what to read of each hash, "@" first; the i-th of group g has number 10000 g + i
--   9  sets       {group, ...} of each set
--   10 rules      {{kind, place, bound, is_shadow}, ...}; kind 1 rate, 2 budget, 3 parallel; place: number of a field
--                 or of a set; bound: microseconds, micro-dollars, calls at once
--   11 seeds      {rule, amount, ...}: micro-dollars known to be spent of budgets; counters are raised to that
--   12 ends       {{call, rule, delta, full, ...}, ...}; call: number of a field; delta: microseconds, micro-dollars or
--                 0 to add to what the call had reserved, as far as that has not drained; full: the same if nothing
--                 is known of the call, or of what it reserved in that budget
--   13 holds      {{call, refund, rule, amount, ...}, ...}: calls that go on; charged unasked if they are not known
--   14 resets     {rule, ...}
--   15 asks       {{call, refund, rule, amount, ...}, ...}; amount: microseconds, micro-dollars, slots
--   16 looks      {rule, ...}
-- Reply, MessagePack: {server's microsecond} if it was delayed, else
--   {server's microsecond, {answer to each hold}, {answer to each ask}, {state of each look}}
-- An answer is {0 refused | 1 admitted | 2 a budget has no counter, state, ...}, a state for each rule, after the charge:
-- microseconds to drain, micro-dollars taken (-1: no counter), or calls at once.

local batch = cmsgpack.unpack(ARGV[1])
local lease_us, call_us, max_us = batch[3], batch[4], batch[7]
local groups, sets, rules, ends = batch[8], batch[9], batch[10], batch[12]
local RATE, BUDGET, PARALLEL = 1, 2, 3
local STRIDE = 10000
local DAY_US = 86400000000
-- What was given back is counted round and round: a double is exact up to twice this and no count goes on for ever.
local ERA = 2 ^ 52
local max, min, floor, match, gmatch, find = math.max, math.min, math.floor, string.match, string.gmatch, string.find

-- tostring() would lose digits of microseconds.
local function text(number) return string.format('%.0f', number) end

local time = redis.call('TIME')
local server_us = tonumber(time[1]) * 1000000 + tonumber(time[2])

local node = redis.call('GET', KEYS[1])
local last_end = 0
if node then
  local last_batch, last = match(node, '^(%d+):(%d+)$')
  if tonumber(last_batch) > batch[1] then return cmsgpack.pack({server_us}) end
  last_end = tonumber(last)
end

-- Read. A server's clock that jumps back, or another server's after a failover, must not stop a group's time.
local value, name, group_of, dirty, now, offset, is_first_today = {}, {}, {}, {}, {}, {}, {}
for g, fields in ipairs(groups) do
  local read = redis.call('HMGET', KEYS[1 + g], unpack(fields))
  local at = g * STRIDE
  for i, field in ipairs(fields) do
    value[at + i], name[at + i], group_of[at + i] = read[i], field, g
  end
  now[g], offset[g], is_first_today[g] = server_us, 0, true
  if read[1] then
    local latest, added = match(read[1], '^(%d+):(%d+)$')
    latest, offset[g] = tonumber(latest), tonumber(added)
    now[g] = server_us + offset[g]
    if now[g] < latest then now[g], offset[g] = latest, offset[g] + latest - now[g] end
    is_first_today[g] = floor(latest / DAY_US) < floor(now[g] / DAY_US)
  end
end
local kind, place, bound, is_shadow, given = {}, {}, {}, {}, {}
for r, rule in ipairs(rules) do
  kind[r], place[r], bound[r], is_shadow[r] = rule[1], rule[2], rule[3], rule[4]
  local at = place[r]
  if kind[r] ~= PARALLEL and value[at] then
    local number = tonumber(value[at])
    if not number then
      local drained, back = match(value[at], '^(%d+):(%d+)$')
      number, given[at] = tonumber(drained), tonumber(back)
    end
    value[at] = number
  end
end

local function set_key(s) return KEYS[1 + #groups + s] end
local taken, added, removed = {}, {}, {}
for s = 1, #sets do added[s], removed[s] = {}, {} end

local function flush_leases()
  for s, group in ipairs(sets) do
    if #removed[s] > 0 then redis.call('ZREM', set_key(s), unpack(removed[s])) end
    if #added[s] > 0 then
      redis.call('ZADD', set_key(s), unpack(added[s]))
      redis.call('PEXPIRE', set_key(s), text(lease_us / 1000))
    end
    added[s], removed[s] = {}, {}
  end
end

local function lease(call, s)
  local leases = added[s]
  leases[#leases + 1] = text(now[sets[s]] + lease_us)
  leases[#leases + 1] = string.sub(name[call], 3)
end

local function put(at, number) value[at], dirty[at] = number, true end

local function charge(r, amount)
  local at = place[r]
  if kind[r] == RATE then
    local now_us = now[group_of[at]]
    put(at, min(max(value[at] or 0, now_us) + amount, now_us + max_us))
  elseif kind[r] == BUDGET then
    put(at, max((value[at] or 0) + amount, 0))
  end
end

local function gross(at) return value[at] + (given[at] or 0) end

local function take_from_under(at, back)
  if back > 0 then given[at] = ((given[at] or 0) + back) % ERA end
end

-- As gcra.given_back says; a call without a mark was charged by a gateway that knew of none.
local function give_back(at, over, mark)
  local left = mark and (mark - (given[at] or 0) - now[group_of[at]]) % ERA or 0
  local back = left > max_us and 0 or min(over, left)
  if mark and (gross(at) - mark) % ERA ~= 0 then take_from_under(at, back) end
  put(at, value[at] - back)
end

local function settle(r, delta, mark)
  local at = place[r]
  if not value[at] then return end
  if kind[r] == BUDGET then
    put(at, max(value[at] + delta, 0))
  elseif delta < 0 then
    give_back(at, -delta, mark)
  else
    put(at, min(value[at] + delta, now[group_of[at]] + max_us))
  end
end

local function state(r)
  local at = place[r]
  if kind[r] == PARALLEL then return taken[at] end
  if kind[r] == BUDGET then return value[at] or -1 end
  return max((value[at] or 0) - now[group_of[at]], 0)
end

local function fits(r, amount)
  if is_shadow[r] then return true end
  if kind[r] == RATE then return state(r) + amount <= max(bound[r], amount) end
  return state(r) + amount <= bound[r]
end

local function lacks_counter(op)
  for i = 3, #op, 2 do
    if kind[op[i]] == BUDGET and not value[place[op[i]]] then return true end
  end
  return false
end

local function remember(op)
  local known, rest = value[op[1]], ''
  if known then
    rest = match(known, '^%d+(.*)$')
  else
    for i = 3, #op, 2 do
      if kind[op[i]] == RATE then rest = rest .. ':' .. text(gross(place[op[i]])) end
    end
    rest = rest .. op[2]
  end
  put(op[1], text(now[group_of[op[1]]] + call_us) .. rest)
end

local function has_reserved(call, field) return find(call .. '\n', ':' .. field .. '\n', 1, true) end

-- What calls under way reserved in a budget that is reset is in it no more: they come to all that they take.
local function forget_reserved(r)
  local key, field = KEYS[1 + group_of[place[r]]], name[place[r]]
  local line = '\n[12]:%d+:' .. string.gsub(field, '%p', '%%%0') .. '\n'
  local function without(call) return string.sub(string.gsub(call .. '\n', line, '\n'), 1, -2) end
  local here = {}
  for at, call in pairs(name) do
    if find(call, 'c:', 1, true) == 1 then
      here[call] = true
      if value[at] and has_reserved(value[at], field) then put(at, without(value[at])) end
    end
  end
  local cursor = '0'
  repeat
    local found = redis.call('HSCAN', key, cursor, 'MATCH', 'c:*', 'COUNT', 1000)
    cursor = found[1]
    for i = 1, #found[2], 2 do
      local call, told = found[2][i], found[2][i + 1]
      if not here[call] and has_reserved(told, field) then redis.call('HSET', key, call, without(told)) end
    end
  until cursor == '0'
end

local function answer(code, op)
  local told = {code}
  for i = 3, #op, 2 do told[#told + 1] = state(op[i]) end
  return told
end

-- Budgets that were lost with the server's memory come back before anything is added to them.
local seeds = batch[11]
for i = 1, #seeds, 2 do
  local at = place[seeds[i]]
  put(at, max(value[at] or 0, seeds[i + 1]))
end

for number, op in ipairs(ends) do
  if batch[2] + number - 1 > last_end then
    local known = value[op[1]]
    local marks = known and gmatch(match(known, '^%d+([:%d]*)'), '%d+')
    for i = 2, #op, 3 do
      local r = op[i]
      local mark = known and kind[r] == RATE and tonumber(marks() or '')
      if kind[r] == PARALLEL then
        local leases = removed[place[r]]
        leases[#leases + 1] = string.sub(name[op[1]], 3)
      elseif known then
        local is_lost = kind[r] == BUDGET and not has_reserved(known, name[place[r]])
        settle(r, is_lost and op[i + 2] or op[i + 1], mark)
      elseif kind[r] == RATE or value[place[r]] then
        -- A budget without a counter stays without: what is read back for it holds this call.
        if op[i + 2] ~= 0 then charge(r, op[i + 2]) end
      end
    end
    if known then put(op[1], false) end
  end
end
-- A server without memory refuses a script's first write if that may take some, and none after one that may not. So that
-- it refuses the whole of this one, what was read is written first.
if #sets > 0 then redis.call('SET', KEYS[1], node or '0:0', 'PX', batch[5]) end
for s, group in ipairs(sets) do
  redis.call('ZREMRANGEBYSCORE', set_key(s), '-inf', text(now[group]))
end
flush_leases()

local held = {}
for number, op in ipairs(batch[13]) do
  local code = 1
  if not value[op[1]] and lacks_counter(op) then
    code = 2
  else
    for i = 3, #op, 2 do
      if kind[op[i]] == PARALLEL then lease(op[1], place[op[i]])
      elseif not value[op[1]] then charge(op[i], op[i + 1]) end
    end
    remember(op)
  end
  held[number] = code
end
flush_leases()

for _, r in ipairs(batch[14]) do
  if kind[r] == PARALLEL then redis.call('DEL', set_key(place[r]))
  elseif kind[r] == RATE then
    local at, now_us = place[r], now[group_of[place[r]]]
    take_from_under(at, (value[at] or 0) - now_us)
    put(at, now_us)
  else
    put(place[r], 0)
    forget_reserved(r)
  end
end
for s = 1, #sets do taken[s] = redis.call('ZCARD', set_key(s)) end

local answers = {}
for number, op in ipairs(batch[15]) do
  local code = 1
  if not value[op[1]] then
    if lacks_counter(op) then code = 2 end
    for i = 3, #op, 2 do
      if code == 1 and not fits(op[i], op[i + 1]) then code = 0 end
    end
    if code == 1 then
      for i = 3, #op, 2 do
        local at = place[op[i]]
        if kind[op[i]] == PARALLEL then
          lease(op[1], at)
          taken[at] = taken[at] + 1
        else
          charge(op[i], op[i + 1])
        end
      end
      remember(op)
    end
  end
  answers[number] = answer(code, op)
end

local looks = {}
for i, r in ipairs(batch[16]) do looks[i] = state(r) end

-- Write.
flush_leases()
for g, fields in ipairs(groups) do
  local key, at = KEYS[1 + g], g * STRIDE
  local written, gone = {'@', text(now[g]) .. ':' .. text(offset[g])}, {}
  for i, field in ipairs(fields) do
    local new = value[at + i]
    if dirty[at + i] and new then
      local back = given[at + i] or 0
      written[#written + 1] = field
      written[#written + 1] = (type(new) == 'number' and text(new) or new) .. (back > 0 and ':' .. text(back) or '')
    elseif dirty[at + i] then
      gone[#gone + 1] = field
    end
  end
  redis.call('HSET', key, unpack(written))
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
  if is_first_today[g] then redis.call('EXPIRE', key, batch[6]) end
end
local newest_end = max(last_end, batch[2] + #ends - 1)
redis.call('SET', KEYS[1], text(batch[1]) .. ':' .. text(newest_end), 'PX', batch[5])

return cmsgpack.pack({server_us, held, answers, looks})

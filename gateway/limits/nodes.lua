-- Say that a gateway is there, and count those that said so lately.
--
-- KEYS[1] sorted set: gateway by Unix microsecond of its last word
-- ARGV[1] name of the gateway
-- ARGV[2] how long a word counts, microseconds
-- Reply: how many there are, this one included

local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
redis.call('ZADD', KEYS[1], string.format('%.0f', now_us), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now_us - tonumber(ARGV[2])))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', tonumber(ARGV[2]) / 1000))
return redis.call('ZCARD', KEYS[1])

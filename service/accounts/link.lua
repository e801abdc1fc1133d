--[[
  Give a user an identity. An owner, who has proved the email, puts everybody else out of an account where it never was:
  whoever made it may have come back in since it was stripped.

  KEYS[1]  the user
  ARGV[1]  field of the identity
  ARGV[2]  the identity
  ARGV[3]  what the field held when the caller looked, or ""
  ARGV[4]  whether the email was verified when the caller looked: "1" or "0"
  ARGV[5]  who asks: "holder" of a session, "verified" for one whose email this verifies too, or "owner"
  ARGV[6]  now, ms

  Returns "linked", or "differs" when the account is not as the caller saw it. Run again, it says "linked" again.
]]
local user, field, identity, seen, seen_verified, who = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]

if redis.call("HEXISTS", user, "email") == 0 or redis.call("HEXISTS", user, "gone") == 1 then return "differs" end
local held, verified = redis.call("HGET", user, field) or "", redis.call("HEXISTS", user, "ok")
if who == "owner" and verified == 0 then
  redis.call("HDEL", user, "pw", "new")
  for _, name in ipairs(redis.call("HKEYS", user)) do
    if string.sub(name, 1, 3) == "id:" or string.sub(name, 1, 5) == "once." then redis.call("HDEL", user, name) end
  end
elseif held ~= identity and (held ~= seen or (who ~= "owner" and verified ~= seen_verified)) then
  return "differs"
end
redis.call("HSET", user, field, identity, "up", ARGV[6])
if who ~= "holder" then redis.call("HSET", user, "ok", "1") end
return "linked"

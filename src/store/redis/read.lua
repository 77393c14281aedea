-- Reads a key. One that holds something of another type counts as one that holds nothing, which is
-- an empty table; any other error ends the script. Were it passed over, whoever lacks the right to
-- read would find no sign-out and no lease.
local function read(command, ...)
  local answer = redis.pcall(command, ...)
  if type(answer) == 'table' and answer.err then
    if not string.find(answer.err, 'WRONGTYPE', 1, true) then redis.call(command, ...) end
    return {}
  end
  return answer
end


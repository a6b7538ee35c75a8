def to_remove(steps, keep, every, pinned, verified):
    s = sorted(steps, reverse=True)
    k = set(s[:keep]) | {x for x in s if every and x % every == 0} | set(pinned)
    v = [x for x in s if x in verified]
    k |= set(v[:1])
    return [x for x in s if x not in k and v and x < v[0]]

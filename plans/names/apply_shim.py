import sys,re,glob,collections
from pathlib import Path
R=Path(sys.argv[1]); rows=set()
for f in glob.glob('./shim.*.log'):
    for l in open(f):
        p=l.rstrip('\n').split('\t')
        if p[0] in('attr','kw'): rows.add(tuple(p))
n=0
byfile=collections.defaultdict(list)
for r in rows: byfile[r[1]].append(r)
for f,rs in byfile.items():
    p=R/f if not f.startswith('/') else Path(f)
    if f.endswith('.j2') or '/templates/' in f:
        print('TEMPLATE',sorted({(r[3],r[4],r[5]) for r in rs}),f); continue
    if not p.exists() or (not f.startswith(('tests/','rollout/','api/','benchmarks','examples'))): print('skip',f,rs[0]); continue
    L=p.read_text().split('\n')
    for kind,_,ln,old,new,cls in sorted(rs,key=lambda r:-int(r[2])):
        ln=int(ln)-1; done=False
        if kind=='attr':
            for k in [ln,ln+1,ln+2,ln+3,ln-1,ln-2]:
                if 0<=k<len(L) and re.search(rf'\.{old}(?!\w)',L[k]):
                    L[k]=re.sub(rf'\.{old}(?!\w)(?!=)',f'.{new}',L[k]); done=True; n+=1; break
        else:
            for k in range(ln,min(ln+15,len(L))):
                if re.search(rf'(?<![\w.]){old}=(?!=)',L[k]):
                    L[k]=re.sub(rf'(?<![\w.]){old}=(?!=)',f'{new}=',L[k],count=1); done=True; n+=1; break
        if not done: print('not found',kind,f,ln+1,old,new,cls,'|',L[ln].strip()[:80])
    p.write_text('\n'.join(L))
print(n,'replacements of',len(rows))

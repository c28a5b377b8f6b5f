"""pytest plugin: old member names answer by the new ones and are logged."""
import json,sys,os,importlib,inspect,dataclasses
DATA=json.load(open('./renamed.json'))
ROOT=os.getcwd()
LOG=open(f'./shim.{os.getpid()}.log','a',buffering=1)
SEEN=set()
GL=DATA['GLOB']
def log(kind,frame,old,new,cls):
    f=frame.f_code.co_filename
    if f.startswith(ROOT): f=f[len(ROOT)+1:]
    k=(kind,f,frame.f_lineno,old,new,cls)
    if k not in SEEN: SEEN.add(k); LOG.write('\t'.join(map(str,k))+'\n')
class Old:
    def __init__(s,old,new,cls): s.old,s.new,s.cls=old,new,cls
    def __get__(s,obj,owner):
        fr=sys._getframe(1)
        if fr.f_code.co_filename.endswith(('inspect.py','functools.py','pydoc.py','dataclasses.py')): raise AttributeError(s.old)
        log('attr',fr,s.old,s.new,s.cls)
        return getattr(owner if obj is None else obj,s.new)
def patch():
    bymod={}
    for k,new in DATA['MEMB'].items():
        cls,old=k.rsplit('.',1); bymod.setdefault(cls,[]).append((old,new))
    # new class names
    for cls,items in bymod.items():
        parts=cls.split('.')
        for i in range(len(parts)-1,0,-1):
            m='.'.join(parts[:i])
            if os.path.exists(os.path.join(ROOT,m.replace('.','/')+'.py')): break
        else: continue
        names=parts[i:]
        try: mod=importlib.import_module(m)
        except Exception as e: LOG.write(f'import\t{m}\t{e!r}\n'); continue
        c=mod; full=m
        try:
            for n in names:
                full2=f'{full}.{n}'
                c=getattr(c,GL.get(full2,n)); full=full2
        except AttributeError: LOG.write(f'noclass\t{cls}\n'); continue
        if not isinstance(c,type): continue
        kw={}
        for old,new in items:
            if old in c.__dict__ or any(old in b.__dict__ for b in c.__mro__[:-1]): continue
            try: setattr(c,old,Old(old,new,cls)); kw[old]=new
            except (AttributeError,TypeError): LOG.write(f'cant\t{cls}.{old}\n')
        if dataclasses.is_dataclass(c) and '__init__' in c.__dict__:
            fields={f.name for f in dataclasses.fields(c)}
            ren={o:n for o,n in kw.items() if n in fields}
            if ren:
                orig=c.__init__
                def init(self,*a,_orig=orig,_ren=ren,_cls=cls,**k):
                    for o,n in _ren.items():
                        if o in k:
                            fr=sys._getframe(1)
                            if fr.f_code.co_filename.endswith('dataclasses.py'): fr=fr.f_back
                            log('kw',fr,o,n,_cls); k[n]=k.pop(o)
                    _orig(self,*a,**k)
                c.__init__=init
def pytest_configure(config): patch()

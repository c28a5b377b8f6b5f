"""Scope-aware batch rename. rename.py ROOT map.tsv [map.tsv...] [--apply]
Map lines: path<TAB>qualified<TAB>new, as README.md."""
import ast,sys,os,re,io,tokenize,collections,subprocess,keyword,builtins
from pathlib import Path
ROOT=Path(sys.argv[1]).resolve(); MAPS=[a for a in sys.argv[2:] if not a.startswith('--')]; APPLY='--apply' in sys.argv
os.chdir(ROOT); sys.path.insert(0,str(ROOT))
LOG=collections.Counter(); REPORT=[]
def note(kind,*a): LOG[kind]+=1; REPORT.append((kind,*map(str,a)))
files=[f for f in subprocess.run(['git','ls-files','-co','--exclude-standard'],capture_output=True,text=True).stdout.split('\n') if f and Path(f).exists()]
pys=[f for f in files if f.endswith('.py')]
def modname(f):
    p=Path(f).with_suffix('').parts
    return '.'.join(p[:-1] if p[-1]=='__init__' else p)
SRC={f:Path(f).read_text() for f in pys}
TREE={f:ast.parse(s) for f,s in SRC.items()}
MOD={modname(f):f for f in pys}
# ---------- read the maps
want=[]   # (path,qual,var|None,new)
stars=[]
for m in MAPS:
    for i,line in enumerate(open(m),1):
        line=line.rstrip('\n')
        if not line.strip() or line.startswith('#'): continue
        p=line.split('\t')
        if len(p)!=3 or not re.fullmatch(r'[A-Za-z_]\w*',p[2]) or keyword.iskeyword(p[2]): note('malformed',m,i,line); continue
        path,q,new=p
        mm=re.fullmatch(r'(.+)\((\w+)\)',q)
        if mm: want.append((path,mm.group(1),mm.group(2),new,m))
        else: want.append((path,q,None,new,m))
scope_of_map={}   # which packages a map's '*' path covers
for path,q,v,new,m in want:
    if path!='*': scope_of_map.setdefault(m,set()).add('/'.join(path.split('/')[:2]))
# ---------- scopes by ast
FUNC=(ast.FunctionDef,ast.AsyncFunctionDef,ast.Lambda)
COMP=(ast.ListComp,ast.SetComp,ast.DictComp,ast.GeneratorExp)
def arglist(a): return a.posonlyargs+a.args+([a.vararg] if a.vararg else [])+a.kwonlyargs+([a.kwarg] if a.kwarg else [])
class Scope:
    def __init__(s,kind,name,parent,node): s.kind,s.name,s.parent,s.node=kind,name,parent,node; s.names=set(); s.outer=set(); s.rename={}; s.used=set()
    def func(s):
        x=s
        while x and x.kind in('comp','lambda'): x=x.parent
        return x
    def qual(s):
        x=s; out=[]
        while x and x.kind!='module':
            if x.kind in('func','class'): out.append(x.name)
            x=x.parent
        return '.'.join(reversed(out))
class Binder(ast.NodeVisitor):
    """Build scopes; record every Name with its scope."""
    def __init__(s,tree):
        s.mod=Scope('module','',None,tree); s.cur=s.mod; s.scopes=[s.mod]; s.uses=[]  # (node,name,scope)
        s.strs=[]
        for n in tree.body: s.visit(n)
    def new(s,kind,name,node):
        sc=Scope(kind,name,s.cur,node); s.scopes.append(sc); return sc
    def bind(s,name,sc=None):
        sc=sc or s.cur
        if name not in sc.outer: sc.names.add(name)
    def visit_Import(s,n):
        for al in n.names: s.bind((al.asname or al.name).split('.')[0])
    def visit_ImportFrom(s,n):
        for al in n.names: s.bind(al.asname or al.name)
        s.uses.append((n,None,s.cur))
    def visit_Name(s,n):
        if not isinstance(n.ctx,ast.Load): s.bind(n.id)
        s.uses.append((n,n.id,s.cur)); s.cur.used.add(n.id)
    def visit_NamedExpr(s,n):
        sc=s.cur
        while sc.kind=='comp': sc=sc.parent
        s.bind(n.target.id,sc); s.uses.append((n.target,n.target.id,sc)); s.visit(n.value)
    def visit_Global(s,n): s.cur.outer|=set(n.names); s.uses.append((n,None,s.cur))
    visit_Nonlocal=visit_Global
    def visit_ExceptHandler(s,n):
        if n.type: s.visit(n.type)
        if n.name: s.bind(n.name); s.uses.append((n,n.name,s.cur))
        for x in n.body: s.visit(x)
    def visit_MatchAs(s,n):
        if n.pattern: s.visit(n.pattern)
        if n.name: s.bind(n.name); s.uses.append((n,n.name,s.cur))
    def visit_MatchStar(s,n):
        if n.name: s.bind(n.name); s.uses.append((n,n.name,s.cur))
    def visit_MatchMapping(s,n):
        s.generic_visit(n)
        if n.rest: s.bind(n.rest); s.uses.append((n,n.rest,s.cur))
    def dofunc(s,n,name,kind):
        a=n.args
        for x in getattr(n,'decorator_list',[]): s.visit(x)
        for d in a.defaults+[d for d in a.kw_defaults if d]: s.visit(d)
        for x in arglist(a):
            if x.annotation: s.visit(x.annotation)
        if getattr(n,'returns',None): s.visit(n.returns)
        if kind=='func': s.bind(name); s.uses.append((n,name,s.cur))
        sc=s.new(kind,name,n); old=s.cur; s.cur=sc
        for x in arglist(a): s.bind(x.arg); s.uses.append((x,x.arg,sc))
        for x in (n.body if isinstance(n.body,list) else [n.body]): s.visit(x)
        s.cur=old
    def visit_FunctionDef(s,n): s.dofunc(n,n.name,'func')
    visit_AsyncFunctionDef=visit_FunctionDef
    def visit_Lambda(s,n): s.dofunc(n,'<lambda>','lambda')
    def visit_ClassDef(s,n):
        for x in n.decorator_list+n.bases: s.visit(x)
        for k in n.keywords: s.visit(k)
        s.bind(n.name); s.uses.append((n,n.name,s.cur))
        sc=s.new('class',n.name,n); old=s.cur; s.cur=sc
        for x in n.body: s.visit(x)
        s.cur=old
    def docomp(s,n):
        gens=n.generators
        s.visit(gens[0].iter)
        sc=s.new('comp','',n); old=s.cur; s.cur=sc
        for i,g in enumerate(gens):
            s.visit(g.target)
            if i: s.visit(g.iter)
            for c in g.ifs: s.visit(c)
        for x in ([n.key,n.value] if isinstance(n,ast.DictComp) else [n.elt]): s.visit(x)
        s.cur=old
    visit_ListComp=visit_SetComp=visit_DictComp=visit_GeneratorExp=docomp
    def visit_Constant(s,n):
        if isinstance(n.value,str): s.strs.append((n,s.cur))
BIND={f:Binder(t) for f,t in TREE.items()}
# after binding, walrus/global order issues are negligible
def resolve(sc,name):
    """Return the scope that binds name, seen from sc (python rules), or None."""
    x=sc; first=True
    while x:
        if name in x.names and (x.kind!='class' or first) : return x
        if x.kind not in('comp',): first=False if x.kind!='class' else False
        x=x.parent
    return None
# ---------- what is renamed
GLOB={}   # 'mod.name' -> new
MEMB={}   # 'mod.Class.member' -> new
LOC=collections.defaultdict(dict)  # (file,funcqual) -> {old:new}
PARAM={}  # (file,funcqual) -> {old:new} for params only
def scopes_by_qual(f):
    d=collections.defaultdict(list)
    for sc in BIND[f].scopes:
        if sc.kind in('func','class'): d[sc.qual()].append(sc)
    return d
QUAL={}
def quals(f):
    if f not in QUAL: QUAL[f]=scopes_by_qual(f)
    return QUAL[f]
def class_attrs(cls):
    out=set(cls.names)
    for n in ast.walk(cls.node):
        if isinstance(n,ast.Attribute) and isinstance(n.value,ast.Name) and n.value.id in('self','cls') and isinstance(n.ctx,ast.Store): out.add(n.attr)
    for n in cls.node.body:
        if isinstance(n,(ast.Assign,ast.AnnAssign)):
            tg=n.targets[0] if isinstance(n,ast.Assign) else n.target
            if isinstance(tg,ast.Name) and tg.id=='__slots__' and n.value is not None:
                out|={c.value for c in ast.walk(n.value) if isinstance(c,ast.Constant) and isinstance(c.value,str)}
    return out
def inner(sc,f):
    """scopes belonging to function sc: itself and its comprehensions and lambdas"""
    out=[sc]
    for x in BIND[f].scopes:
        y=x
        while y and y.kind in('comp','lambda'): y=y.parent
        if y is sc and x is not sc: out.append(x)
    return out
def add_local(f,sc,old,new,quiet=False):
    allsc=[x for x in inner(sc,f)]
    hit=[x for x in allsc if old in x.names]
    if not hit:
        if not quiet: note('no-local',f,sc.qual(),old)
        return
    # visible names: everything used or bound in the function's own scopes and nested
    for x in hit:
        if new in x.names and x.rename.get(new) is None: note('collide-local',f,sc.qual(),old,new); return
    bad=False
    for x in allsc+[y for y in BIND[f].scopes if any(_within(y,h) for h in hit)]:
        if new in x.used and resolve(x,new) not in hit and _within_any(x,hit):
            r=resolve(x,new)
            if r is None or r.rename.get(new) is None: bad=True
    if bad: note('shadows',f,sc.qual(),old,new); return
    for x in hit: x.rename[old]=new
def _within(y,h):
    while y:
        if y is h: return True
        y=y.parent
    return False
def _within_any(y,hs): return any(_within(y,h) for h in hs)
spec=set()
SKIP_LOCAL=set()
for path,q,v,new,m in want:
    if path=='*' or path not in TREE:
        if path!='*': note('no-file',path,q)
        continue
    if v and q!='*': spec.add((path,q,v))
for path,q,v,new,m in want:
    if path=='*' or path not in TREE: continue
    f=path; d=quals(f)
    if v is None:
        if '.' in q:
            c,a=q.rsplit('.',1)
            cl=[s for s in d.get(c,[]) if s.kind=='class']
            fn=[s for s in d.get(c,[]) if s.kind=='func']
            if not cl and fn:
                for s in fn: add_local(f,s,a,new)
                continue
            if not cl: 
                note('no-class',f,q); continue
            attrs=class_attrs(cl[0])
            if a not in attrs: note('no-member',f,q); continue
            if new in attrs and (f,f'{c}.{new}') not in {(p,qq) for p,qq,vv,_,_ in want if vv is None}: note('collide-member',f,q,new); continue
            MEMB[f'{modname(f)}.{q}']=new
        else:
            if q not in BIND[f].mod.names: note('no-global',f,q); continue
            if new in BIND[f].mod.names and (f,q) and (f,new) not in {(p,qq) for p,qq,vv,_,_ in want if vv is None}: note('collide-global',f,q,new); continue
            GLOB[f'{modname(f)}.{q}']=new
    elif q!='*':
        fs=[s for s in d.get(q,[]) if s.kind=='func']
        if not fs: note('no-func',f,q,v); continue
        for s in fs: add_local(f,s,v,new)
for star_path in (False,True):
  for path,q,v,new,m in want:
    if v and q=='*' and (path=='*')==star_path:
        fl=[path] if path!='*' else [f for f in TREE if any(f.startswith(p) for p in scope_of_map.get(m,()))]
        for f in fl:
            if f not in TREE: continue
            for s in BIND[f].scopes:
                if s.kind=='func' and (f,s.qual(),v) not in spec and any(v in x.names and v not in x.rename for x in inner(s,f)): add_local(f,s,v,new,quiet=True)
# a global renamed to X must not be captured by a local X, nor collide with what an importing module has
# ---------- mypy
from mypy import build, nodes, types as T, options as O
from mypy.find_sources import create_source_list
from mypy.config_parser import parse_config_file
opt=O.Options(); opt.incremental=False; opt.cache_dir=os.devnull; opt.export_types=True; opt.preserve_asts=True; opt.check_untyped_defs=True
opt.namespace_packages=True; opt.explicit_package_bases=True; opt.ignore_missing_imports=True; opt.python_version=(3,11); opt.show_traceback=True; opt.python_executable=sys.executable
opt.mypy_path=[str(ROOT)]; opt.ignore_errors=True; opt.follow_imports='normal'; opt.local_partial_types=True
src=create_source_list([f for f in pys if f.split('/')[0] in('rollout','api','tests','benchmarks')],opt)
print('mypy…',len(src),file=sys.stderr)
res=build.build(src,opt)
print('mypy done',len(res.errors),file=sys.stderr)
TY=res.types
FILES={}
for name,tree in res.files.items():
    if tree.path:
        p=Path(tree.path).resolve()
        if p.is_relative_to(ROOT): FILES[str(p.relative_to(ROOT))]=tree
def project(fullname): return fullname.split('.')[0] in('rollout','api','tests','benchmarks')
def infos(t,depth=0):
    t=T.get_proper_type(t) if t is not None else None
    if t is None or depth>5: return []
    if isinstance(t,T.Instance):
        return [t.type]
    if isinstance(t,T.UnionType):
        return [i for x in t.items for i in infos(x,depth+1)]
    if isinstance(t,T.TypeVarType): return infos(t.upper_bound,depth+1) if not t.values else [i for x in t.values for i in infos(x,depth+1)]
    if isinstance(t,T.TupleType): return infos(t.partial_fallback,depth+1)
    if isinstance(t,T.LiteralType): return infos(t.fallback,depth+1)
    if isinstance(t,T.TypedDictType): return []
    if isinstance(t,T.TypeType): return infos(t.item,depth+1)
    if isinstance(t,T.FunctionLike) and t.is_type_obj(): return infos(t.items[0].ret_type,depth+1)
    return []
def root_key(info,attr):
    keys=[f'{c.fullname}.{attr}' for c in info.mro if project(c.fullname) and attr in c.names]
    return keys
def member_new(info,attr):
    for k in reversed(root_key(info,attr)):
        if k in MEMB: return MEMB[k]
    return None
def has_member(info,attr): return bool(root_key(info,attr))
ATTR={}   # (file,endline,endcol,attr) -> new or None/''unresolved
KW={}     # (file, call endline,endcol) -> {kw:new}
def norm_mod_full(fullname): return fullname
def param_new(defn,kw):
    """new name of keyword of function definition node"""
    if isinstance(defn,nodes.Decorator): defn=defn.func
    if isinstance(defn,nodes.OverloadedFuncDef):
        for it in defn.items:
            r=param_new(it,kw)
            if r: return r
        return None
    if isinstance(defn,nodes.FuncDef):
        return PARAMS.get((id(defn)),{}).get(kw)
    return None
SKIPA={'node','info','type','types','unanalyzed_type','names','fullname','_fullname','definition','defs_cell','metadata','type_vars','mro','tuple_type','typeddict_type','dataclass_transform_spec','alias_cdef','original_def','partial_fallback','items_types','upper_bound','default','variance','target','inferred_type','method_types','special_alias','ret_type','type_guard','path','mypy_info','original_first_arg','deps','abstract_status','final_value','plugin_deps','imports','ignored_lines','skipped_lines','kind','alias_deps','_arguments','_def_bindings','raw_str','local_definitions','future_import_flags','is_bom','imported_names'}
_attrs={}
def attrs_of(o):
    c=type(o)
    if c not in _attrs:
        out=[]
        for k in c.__mro__: out+=[a for a in getattr(k,'__mypyc_attrs__',()) if a not in SKIPA and not a.startswith('__')]
        _attrs[c]=list(dict.fromkeys(out))
    return _attrs[c]
def walk_nodes(root):
    stack=[root]; seen=set()
    while stack:
        o=stack.pop()
        if isinstance(o,(list,tuple)): stack.extend(o); continue
        if not isinstance(o,nodes.Node) or isinstance(o,nodes.TypeInfo): continue
        if id(o) in seen: continue
        seen.add(id(o)); yield o
        if isinstance(o,nodes.Var): continue
        for a in attrs_of(o):
            try: v=getattr(o,a)
            except Exception: continue
            if isinstance(v,(nodes.Node,list,tuple)) : stack.append(v)
PARAMS={} # id(FuncDef)->{old:new}
KEEP=[]
class Defs:
    def __init__(s,f): s.f=f
    def visit_func_def(s,o):
        KEEP.append(o)
        sc=FUNCAT.get((s.f,o.line,o.name)) or FUNCAT.get((s.f,'any',o.name,o.line))
        if sc and sc.rename: PARAMS[id(o)]={k:v for k,v in sc.rename.items() if k in {a.arg for a in arglist(sc.node.args)}}
FUNCAT={}
for f,b in BIND.items():
    for sc in b.scopes:
        if sc.kind=='func':
            n=sc.node
            FUNCAT[(f,n.lineno,n.name)]=sc
            for d in n.decorator_list: FUNCAT[(f,'any',n.name,d.lineno)]=sc
for f,tree in FILES.items():
    if f in BIND:
        d_=Defs(f)
        for o_ in walk_nodes(tree):
            if isinstance(o_,nodes.FuncDef): d_.visit_func_def(o_)
def type_info_of_ctor(t):
    t=T.get_proper_type(t) if t is not None else None
    if isinstance(t,T.FunctionLike) and t.is_type_obj():
        r=T.get_proper_type(t.items[0].ret_type)
        if isinstance(r,T.TupleType): r=r.partial_fallback
        if isinstance(r,T.Instance): return r.type
    return None
def init_param_new(info,kw):
    for c in info.mro:
        sym=c.names.get('__init__')
        if sym and project(c.fullname) and not sym.plugin_generated and isinstance(sym.node,(nodes.FuncDef,nodes.Decorator,nodes.OverloadedFuncDef)):
            return param_new(sym.node,kw)
    return member_new(info,kw)
class Refs:
    def __init__(s,f): s.f=f
    def visit_member_expr(s,o):
        key=(s.f,o.end_line,o.end_column,o.name)
        t=TY.get(o.expr)
        new=None; known=False
        if isinstance(o.expr,nodes.RefExpr) and isinstance(o.expr.node,nodes.MypyFile):
            known=True; full=o.expr.node.fullname+'.'+o.name
            sym=o.expr.node.names.get(o.name)
            if sym and sym.node is not None and getattr(sym.node,'fullname',None): new=GLOB.get(sym.node.fullname) or GLOB.get(full)
            else: new=GLOB.get(full)
        elif isinstance(o.expr,nodes.RefExpr) and isinstance(o.expr.node,nodes.TypeInfo):
            info=o.expr.node; known=has_member(info,o.name); new=member_new(info,o.name)
        else:
            ii=infos(t)
            if ii:
                got={member_new(i,o.name) for i in ii if has_member(i,o.name)}
                known=any(has_member(i,o.name) for i in ii) or all(not project(i.fullname) for i in ii)
                got.discard(None) if len(got)>1 else None
                if len(got)==1: new=got.pop()
                elif len(got)>1: note('ambiguous-attr',s.f,o.line,o.name,got)
        old=ATTR.get(key)
        ATTR[key]=(known or (old or (0,0))[0], new or (old or (0,None))[1])
    def visit_call_expr(s,o):
        if not any(o.arg_names): return
        out={}
        callee=o.callee
        ct=TY.get(callee); ct=T.get_proper_type(ct) if ct is not None else None
        node=callee.node if isinstance(callee,nodes.RefExpr) else None
        full=getattr(callee,'fullname','') or ''
        for kw in [a for a in o.arg_names if a]:
            new=None; known=False
            if full in('functools.partial',) and o.args:
                a0=o.args[0]; n0=a0.node if isinstance(a0,nodes.RefExpr) else None
                t0=TY.get(a0); t0=T.get_proper_type(t0) if t0 is not None else None
                if isinstance(n0,nodes.TypeInfo): new=init_param_new(n0,kw); known=True
                elif n0 is not None and isinstance(n0,(nodes.FuncDef,nodes.Decorator,nodes.OverloadedFuncDef)): new=param_new(n0,kw); known=True
                elif isinstance(t0,T.CallableType) and t0.definition is not None: new=param_new(t0.definition,kw); known=True
            elif full in('dataclasses.replace','copy.replace','msgspec.structs.replace') and o.args:
                for i in infos(TY.get(o.args[0])):
                    known=True; new=new or member_new(i,kw)
            elif full.endswith('._replace') or (isinstance(callee,nodes.MemberExpr) and callee.name=='_replace'):
                for i in infos(TY.get(callee.expr)): known=True; new=new or member_new(i,kw)
            else:
                ti=node if isinstance(node,nodes.TypeInfo) else None
                if ti is None and isinstance(node,nodes.TypeAlias):
                    tt=T.get_proper_type(node.target); ti=tt.type if isinstance(tt,T.Instance) else None
                ti=ti or type_info_of_ctor(ct)
                if ti is not None:
                    known=project(ti.fullname); new=init_param_new(ti,kw)
                elif isinstance(node,(nodes.FuncDef,nodes.Decorator,nodes.OverloadedFuncDef)): new=param_new(node,kw); known=True
                elif isinstance(ct,T.CallableType) and ct.definition is not None: new=param_new(ct.definition,kw); known=True
                elif isinstance(ct,T.Overloaded):
                    for it in ct.items:
                        if it.definition is not None: known=True; new=new or param_new(it.definition,kw)
                if isinstance(callee,nodes.MemberExpr) and not new:
                    # a method on an instance: look through the MRO and the bases
                    for i in infos(TY.get(callee.expr)):
                        for c in i.mro:
                            sym=c.names.get(callee.name)
                            if sym is not None and isinstance(sym.node,(nodes.FuncDef,nodes.Decorator,nodes.OverloadedFuncDef)):
                                known=True; new=new or param_new(sym.node,kw)
            out[kw]=(known,new)
        KW.setdefault((s.f,o.line,o.column,o.end_line,o.end_column),{}).update(out)
for f,tree in FILES.items():
    if f in BIND:
        r_=Refs(f)
        for o_ in walk_nodes(tree):
            if isinstance(o_,nodes.MemberExpr): r_.visit_member_expr(o_)
            elif isinstance(o_,nodes.CallExpr): r_.visit_call_expr(o_)
            elif isinstance(o_,nodes.SuperExpr): pass
# unresolved attribute: by uniqueness of the name
defs=collections.defaultdict(set)
for f,b in BIND.items():
    if f.split('/')[0] not in('rollout','api'): continue
    for sc in b.scopes:
        if sc.kind=='class':
            for a in class_attrs(sc): defs[a].add(MEMB.get(f'{modname(f)}.{sc.qual()}.{a}'))
UNIQUE={a:next(iter(v)) for a,v in defs.items() if len(v)==1 and None not in v}
# an override's own definition follows its base
def base_member(f,sc,name):
    tree=FILES.get(f)
    if not tree: return MEMB.get(f'{modname(f)}.{sc.qual()}.{name}')
    info=None; names=tree.names
    for part in sc.qual().split('.'):
        sym=names.get(part); info=sym.node if sym else None
        if not isinstance(info,nodes.TypeInfo): return MEMB.get(f'{modname(f)}.{sc.qual()}.{name}')
        names=info.names
    return member_new(info,name) or MEMB.get(f'{modname(f)}.{sc.qual()}.{name}')
def global_new(f,name):
    """New name for a module-level name as seen in file f (own or imported)."""
    k=f'{modname(f)}.{name}'
    if k in GLOB: return GLOB[k]
    return IMPORTED.get(f,{}).get(name)
IMPORTED={}
def chase(mod,name,depth=0):
    """fullname key in GLOB for mod.name following re-exports"""
    k=f'{mod}.{name}'
    if k in GLOB: return GLOB[k]
    f=MOD.get(mod)
    if f and depth<5:
        for n in ast.walk(TREE[f]):
            if isinstance(n,ast.ImportFrom) and n.module:
                for al in n.names:
                    if (al.asname or al.name)==name and al.asname in(None,al.name): return chase(n.module,al.name,depth+1)
    return None
def collides_import(f,name,new):
    b=BIND[f]
    if new in b.mod.names and global_own(f,new) is None and IMPORTED.get(f,{}).get(new) is None: return True
    for sc in b.scopes:
        if sc.kind!='module' and new in sc.names and sc.rename.get(new) is None and (name in sc.used or any(name in y.used for y in b.scopes if _within(y,sc))): return True
        if sc.kind!='module' and new in sc.rename.values() and (name in sc.used or any(name in y.used for y in b.scopes if _within(y,sc))): return True
    return False
def global_own(f,name): return GLOB.get(f'{modname(f)}.{name}')
ALIAS={}
for f,t in TREE.items():
    IMPORTED[f]={}
for f,t in TREE.items():
    pend={}
    for n in ast.walk(t):
        if isinstance(n,ast.ImportFrom) and n.module:
            for al in n.names:
                new=chase(n.module,al.name)
                if new and al.asname is None: pend[al.name]=new
    for a,b in pend.items(): IMPORTED[f][a]=b
    for a,b in list(pend.items()):
        if collides_import(f,a,b): note('collide-import',f,a,b); ALIAS[f,a]=b; del IMPORTED[f][a]
for k,new in list(GLOB.items()):
    mod,name=k.rsplit('.',1); f=MOD.get(mod)
    if f and collides_import(f,name,new): note('capture-global',f,name,new); 
for f,b in BIND.items():
    for node,name,sc in b.uses:
        if isinstance(node,ast.ImportFrom) and sc.kind!='module' and node.module:
            for al in node.names:
                g=chase(node.module,al.name)
                if g and al.asname is None: sc.rename[al.name]=g
ATTRLINE=collections.defaultdict(list)
for (f_,ln_,co_,at_),v_ in ATTR.items():
    if ln_: ATTRLINE[f_,ln_,at_].append((co_,v_))
def attr_by_order(f,ln,charend,attr):
    line=SRC[f].split('\n')[ln-1]
    if line.isascii(): return None
    occ=[m.end() for m in re.finditer(rf'\.{attr}(?!\w)',line)]; ent=sorted(ATTRLINE[f,ln,attr],key=lambda e:e[0])
    if len(occ)==len(ent) and charend in occ: return ent[occ.index(charend)][1]
    if ent and len({e[1] for e in ent})==1: return ent[0][1]
    return None
# ---------- edits
KWRE=set(keyword.kwlist)
EDITS=collections.defaultdict(dict)  # file -> {(line,col):(old,new)}
def put(f,line,col,old,new):
    EDITS[f][(line,col)]=(old,new)
def fstr_spans(f):
    """Return for each f-string token group: list of NAME tokens (line,col,name) inside braces."""
    toks=list(tokenize.generate_tokens(io.StringIO(SRC[f]).readline)); out=[]
    for t in toks:
        if t.type==tokenize.STRING and re.match(r'(?i)[rb]*f[rb]*["\']',t.string):
            out.append((t.start,t.end,names_in_fstring(t)))
    return out
def names_in_fstring(t):
    s=t.string; m=re.match(r'(?i)[rbf]*("""|\'\'\'|"|\')',s); i=m.end(); end=len(s)-len(m.group(1)); res=[]
    line,col=t.start
    def pos(k):
        pre=s[:k]; nl=pre.count('\n')
        return (line+nl, (col+k) if nl==0 else k-pre.rfind('\n')-1)
    def expr(i):
        """scan an expression from i until : ! } at depth 0; return index after closing brace"""
        depth=0; q=None
        while i<end:
            c=s[i]
            if q:
                if s.startswith(q,i): i+=len(q); q=None; continue
                i+=1; continue
            if c in '\'"':
                q=c; i+=1; continue
            if c in '([{': depth+=1
            elif c in ')]': depth-=1
            elif c=='}':
                if depth==0: return i+1
                depth-=1
            elif c=='!' and depth==0 and s[i+1]!='=': 
                i+=2; continue
            elif c==':' and depth==0:
                return spec(i+1)
            m=re.compile(r'[A-Za-z_]\w*').match(s,i)
            if m and m.end()<end and s[m.end()] in '\'"' and re.fullmatch(r'(?i)[rbuf]+',m.group()):
                q=s[m.end()]; 
                if s.startswith(q*3,m.end()): q=q*3
                j=m.end()+len(q)
                if 'f' in m.group().lower():
                    while not s.startswith(q,j):
                        if s.startswith('{{',j): j+=2; continue
                        if s[j]=='{': j=expr(j+1); continue
                        j+=1
                else: j=s.index(q,j)
                i=j+len(q); q=None; continue
            if m:
                if not(m.group() in KWRE): res.append((*pos(i),m.group()))
                i=m.end(); continue
            m=re.compile(r'\d[\w.]*').match(s,i)
            if m: i=m.end(); continue
            i+=1
        return i
    def spec(i):
        while i<end:
            if s[i]=='{': i=expr(i+1); continue
            if s[i]=='}': return i+1
            i+=1
        return i
    while i<end:
        if s[i]=='{':
            if s[i+1]=='{': i+=2; continue
            i=expr(i+1); continue
        i+=1
    return res
def ordered(n):
    """children in source order"""
    if isinstance(n,ast.IfExp): return [n.body,n.test,n.orelse]
    if isinstance(n,ast.Dict):
        return [x for k,v in zip(n.keys,n.values) for x in (k,v) if x is not None]
    if isinstance(n,ast.Call): return sorted_args(n)
    if isinstance(n,ast.FormattedValue): return [n.value]+([n.format_spec] if n.format_spec else [])
    return list(ast.iter_child_nodes(n))
def sorted_args(n): return [n.func]+n.args+n.keywords
def occurrences(n,out):
    if isinstance(n,ast.Name): out.append((n,n.id)); return
    if isinstance(n,ast.Attribute): occurrences(n.value,out); out.append((n,n.attr)); return
    if isinstance(n,ast.keyword):
        if n.arg: out.append((n,n.arg))
        occurrences(n.value,out); return
    if isinstance(n,ast.Lambda):
        for a in arglist(n.args): out.append((a,a.arg))
        occurrences(n.body,out); return
    if isinstance(n,ast.Constant) or isinstance(n,(ast.expr_context,ast.operator,ast.cmpop)): return
    for c in ordered(n): occurrences(c,out)
OWN=collections.defaultdict(set)
for f,b in BIND.items():
    if f.split('/')[0] in('tests','examples','benchmarks'):
        for sc in b.scopes:
            if sc.kind=='class':
                for a in class_attrs(sc): OWN[a].add(f)
def imports_of(f):
    out=set()
    for n in ast.walk(TREE[f]):
        if isinstance(n,ast.ImportFrom) and n.module:
            for m in [n.module]+[f'{n.module}.{al.name}' for al in n.names]:
                if m in MOD: out.add(MOD[m])
    return out
REACH={}
def reach(f):
    if f not in REACH:
        direct={f}|imports_of(f)
        d=os.path.dirname(f)
        while d:
            c=f'{d}/conftest.py'
            if c in TREE: direct|={c}|imports_of(c)
            d=os.path.dirname(d)
        more=set()
        for x in direct:
            if x in TREE and x.startswith('tests'): more|={y for y in imports_of(x) if y.startswith('tests')}
        REACH[f]=direct|more
    return REACH[f]
COMMON=set()
for (f_,ln_,co_,at_),(kn_,nw_) in ATTR.items():
    if kn_ and nw_ is None: COMMON.add(at_)
tests_file=lambda f: f.split('/')[0] in('tests','benchmarks','examples')
METHPARAM=collections.defaultdict(set)
for f,b in BIND.items():
    if f.split('/')[0] in('rollout','api'):
        for sc in b.scopes:
            if sc.kind=='func':
                for a in arglist(sc.node.args): METHPARAM[sc.name,a.arg].add(sc.rename.get(a.arg))
for f,t in TREE.items():
    b=BIND[f]; newname={}   # id(node) -> new
    usescope={}
    for node,name,sc in b.uses:
        usescope[id(node)]=sc
        if isinstance(node,(ast.ImportFrom,ast.Global,ast.Nonlocal)): continue
        if isinstance(node,ast.arg): r=sc
        elif isinstance(node,(ast.FunctionDef,ast.AsyncFunctionDef,ast.ClassDef)): r=sc if name in sc.names else resolve(sc,name)
        else: r=resolve(sc,name)
        if r is None: continue
        if r.kind=='module': new=global_new(f,name)
        elif r.kind=='class': new=base_member(f,r,name)
        else: new=r.rename.get(name)
        if new: newname[id(node)]=new
    # attributes and keywords
    calls={}
    for n in ast.walk(t):
        if isinstance(n,ast.Attribute):
            got=ATTR.get((f,n.end_lineno,n.end_col_offset,n.attr))
            if got is None:
                line_=SRC[f].split('\n')[n.end_lineno-1]
                if not line_.isascii(): got=attr_by_order(f,n.end_lineno,len(line_.encode()[:n.end_col_offset].decode(errors='ignore')),n.attr)
            if got and got[1]: newname[id(n)]=got[1]
            elif (not got or not got[0]) and n.attr in UNIQUE:
                # annotation `module.Class` or Any
                if tests_file(f) and (n.attr in COMMON or OWN[n.attr]&reach(f)): note('own-attr',f,n.lineno,n.attr,UNIQUE[n.attr])
                elif tests_file(f): newname[id(n)]=UNIQUE[n.attr]; note('by-name-attr',f,n.lineno,n.attr,UNIQUE[n.attr])
                else: note('unresolved-attr',f,n.lineno,n.attr)
            elif (not got or not got[0]) and n.attr in defs and defs[n.attr]!={None}:
                note('unresolved-ambiguous-attr',f,n.lineno,n.attr,defs[n.attr])
            if not got and isinstance(n.value,ast.Name) and resolve(b.mod,n.value.id) is b.mod:
                # module attribute in an annotation
                for im in ast.walk(t):
                    if isinstance(im,ast.ImportFrom):
                        for al in im.names:
                            if (al.asname or al.name)==n.value.id and f'{im.module}.{al.name}' in MOD:
                                g=chase(f'{im.module}.{al.name}',n.attr)
                                if g: newname[id(n)]=g
        elif isinstance(n,ast.Call):
            got=KW.get((f,n.lineno,n.col_offset,n.end_lineno,n.end_col_offset),{})
            for k in n.keywords:
                if not k.arg: continue
                known,new=got.get(k.arg,(False,None))
                if new: newname[id(k)]=new
                elif not known:
                    fn=n.func.attr if isinstance(n.func,ast.Attribute) else n.func.id if isinstance(n.func,ast.Name) else None
                    s=METHPARAM.get((fn,k.arg))
                    if s and s!={None}:
                        if len(s)==1 and tests_file(f): newname[id(k)]=next(iter(s)); note('by-name-kw',f,n.lineno,fn,k.arg)
                        else: note('unresolved-kw',f,n.lineno,fn,k.arg,s)
                    elif fn in('replace',) and k.arg in UNIQUE and tests_file(f): newname[id(k)]=UNIQUE[k.arg]
        elif isinstance(n,ast.MatchClass):
            tgt=n.cls
            # keyword patterns
            for kname,pat in zip(n.kwd_attrs,n.kwd_patterns):
                cname=tgt.id if isinstance(tgt,ast.Name) else tgt.attr
                new=None
                tree=FILES.get(f)
                info=None
                if tree is not None:
                    if isinstance(tgt,ast.Name) and tgt.id in tree.names: info=tree.names[tgt.id].node
                    elif isinstance(tgt,ast.Attribute) and isinstance(tgt.value,ast.Name) and tgt.value.id in tree.names:
                        mf=tree.names[tgt.value.id].node
                        if isinstance(mf,nodes.MypyFile) and tgt.attr in mf.names: info=mf.names[tgt.attr].node
                if isinstance(info,nodes.TypeInfo): new=member_new(info,kname)
                if new:
                    # text before the pattern: kname=
                    L=SRC[f].split('\n')[pat.lineno-1].encode()
                    pre=L[:pat.col_offset].decode(); m=re.search(rf'\b{kname}\s*=\s*$',pre)
                    if m: put(f,pat.lineno,m.start(),kname,new)
                    else: note('match-kw-text',f,pat.lineno,kname)
    # f-strings first
    spans=fstr_spans(f)
    infstr=set()
    for n in ast.walk(t):
        if isinstance(n,ast.JoinedStr) and id(n) not in infstr:
            for x in ast.walk(n):
                if x is not n: infstr.add(id(x))
    for n in ast.walk(t):
        if isinstance(n,ast.JoinedStr) and id(n) not in infstr:
            occ=[]; 
            for v in n.values:
                if isinstance(v,ast.FormattedValue): occurrences(v,occ)
            names=[x for st,en,ns in spans if (n.lineno,n.col_offset)<= (st[0],len(SRC[f].split('\n')[st[0]-1][:st[1]].encode())) and (en[0],0)<=(n.end_lineno,10**6) and (st[0],st[1])<(n.end_lineno,n.end_col_offset) for x in ns]
            if [x[2] for x in names]!=[o[1] for o in occ]:
                if any(id(x) in newname for x,_ in occ): note('fstring',f,n.lineno,[x[2] for x in names],[o[1] for o in occ]); continue
            for (ln,co,nm),(x,_) in zip(names,occ):
                nw=newname.get(id(x))
                if isinstance(x,ast.Attribute):
                    line_=SRC[f].split('\n')[ln-1]
                    for key in ((f,ln,len(line_[:co+len(nm)].encode()),nm),(f,ln,co+len(nm),nm)):
                        if key in ATTR: nw=ATTR[key][1]; break
                    else:
                        v=attr_by_order(f,ln,co+len(nm),nm)
                        if v: nw=v[1]
                if nw: put(f,ln,co,nm,nw)
    L=SRC[f].split('\n'); LB=[l.encode() for l in L]
    def ch(line,bcol): return len(LB[line-1][:bcol].decode())
    for n in ast.walk(t):
        if id(n) in infstr and not isinstance(n,ast.JoinedStr): continue
        new=newname.get(id(n))
        if isinstance(n,ast.ImportFrom) and n.module:
            for al in n.names:
                g=chase(n.module,al.name)
                if not g: continue
                ln=al.lineno; col=ch(ln,al.col_offset)
                put(f,ln,col,al.name,g if (f,al.name) not in ALIAS else f'{g} as {al.name}')
        elif isinstance(n,(ast.Global,ast.Nonlocal)):
            for nm in n.names:
                sc=usescope.get(id(n)); r=resolve(sc.parent,nm) if isinstance(n,ast.Nonlocal) else b.mod
                g=global_new(f,nm) if r is b.mod else r.rename.get(nm) if r else None
                if g:
                    m=re.search(rf'\b{nm}\b',L[n.lineno-1][n.col_offset+6:]); put(f,n.lineno,m.start()+n.col_offset+6,nm,g)
        if not new: continue
        if isinstance(n,ast.Name): put(f,n.lineno,ch(n.lineno,n.col_offset),n.id,new)
        elif isinstance(n,ast.arg): put(f,n.lineno,ch(n.lineno,n.col_offset),n.arg,new)
        elif isinstance(n,ast.Attribute):
            e=ch(n.end_lineno,n.end_col_offset); put(f,n.end_lineno,e-len(n.attr),n.attr,new)
        elif isinstance(n,ast.keyword): put(f,n.lineno,ch(n.lineno,n.col_offset),n.arg,new)
        elif isinstance(n,(ast.FunctionDef,ast.AsyncFunctionDef,ast.ClassDef)):
            m=re.compile(r'(?:async\s+)?(?:def|class)\s+').search(L[n.lineno-1],ch(n.lineno,n.col_offset)); put(f,n.lineno,m.end(),n.name,new)
        elif isinstance(n,ast.ExceptHandler):
            m=re.search(rf'\bas\s+({n.name})\s*:',L[n.lineno-1]); 
            if m: put(f,n.lineno,m.start(1),n.name,new)
            else: note('except-text',f,n.lineno)
        elif isinstance(n,(ast.MatchAs,ast.MatchStar)):
            e=ch(n.end_lineno,n.end_col_offset); put(f,n.end_lineno,e-len(n.name),n.name,new)
        elif isinstance(n,ast.MatchMapping): note('match-rest',f,n.lineno)
    # strings: __all__, __slots__, monkeypatch.setattr(obj,"name")
    for n in ast.walk(t):
        if isinstance(n,ast.Assign) and any(isinstance(x,ast.Name) and x.id=='__all__' for x in n.targets):
            for c in ast.walk(n.value):
                if isinstance(c,ast.Constant) and isinstance(c.value,str):
                    g=global_new(f,c.value)
                    if g: put(f,c.lineno,ch(c.lineno,c.col_offset)+1,c.value,g)
        for an in ([n.annotation] if isinstance(n,(ast.AnnAssign,ast.arg)) and n.annotation is not None else [n.returns] if isinstance(n,(ast.FunctionDef,ast.AsyncFunctionDef)) and n.returns is not None else [n.args[0]] if isinstance(n,ast.Call) and isinstance(n.func,ast.Name) and n.func.id=='cast' and n.args else []):
            for c in ast.walk(an):
                if isinstance(c,ast.Constant) and isinstance(c.value,str) and c.lineno==c.end_lineno:
                    seg=L[c.lineno-1][ch(c.lineno,c.col_offset):ch(c.lineno,c.end_col_offset)]
                    for m in re.finditer(r'(?<![\w.])[A-Za-z_]\w*',seg):
                        g=global_new(f,m.group())
                        if g: put(f,c.lineno,ch(c.lineno,c.col_offset)+m.start(),m.group(),g)
        if isinstance(n,ast.Assign) and isinstance(n.value,ast.Call) and isinstance(n.value.func,ast.Name) and n.value.func.id in('TypeVar','NewType','ParamSpec') and isinstance(n.targets[0],ast.Name):
            c=n.value.args[0]; g=global_new(f,n.targets[0].id)
            if g and isinstance(c,ast.Constant): put(f,c.lineno,ch(c.lineno,c.col_offset)+1,c.value,g)
        if isinstance(n,ast.Subscript):
            for c in ast.walk(n.slice):
                if isinstance(c,ast.Constant) and isinstance(c.value,str) and c.value.isidentifier() and c.value[:1].isupper():
                    g=global_new(f,c.value)
                    if g: put(f,c.lineno,ch(c.lineno,c.col_offset)+1,c.value,g)
        if isinstance(n,ast.ClassDef):
            for s2 in n.body:
                if isinstance(s2,(ast.Assign,ast.AnnAssign)):
                    tg=s2.targets[0] if isinstance(s2,ast.Assign) else s2.target
                    if isinstance(tg,ast.Name) and tg.id=='__slots__' and s2.value is not None:
                        for c in ast.walk(s2.value):
                            if isinstance(c,ast.Constant) and isinstance(c.value,str):
                                cl=[sc for sc in b.scopes if sc.kind=='class' and sc.node is n][0]
                                g=base_member(f,cl,c.value)
                                if g: put(f,c.lineno,ch(c.lineno,c.col_offset)+1,c.value,g)
        if isinstance(n,ast.Call) and isinstance(n.func,ast.Attribute) and n.func.attr in('setattr','delattr') and len(n.args)>=2 and isinstance(n.args[1],ast.Constant) and isinstance(n.args[1].value,str):
            a0,c=n.args[:2]; g=None
            tree=FILES.get(f)
            if isinstance(a0,ast.Name):
                for im in ast.walk(t):
                    if isinstance(im,ast.ImportFrom):
                        for al in im.names:
                            if (al.asname or al.name)==a0.id:
                                full=f'{im.module}.{al.name}'
                                if full in MOD: g=chase(full,c.value)
                                elif tree is not None and a0.id in tree.names and isinstance(tree.names[a0.id].node,nodes.TypeInfo): g=member_new(tree.names[a0.id].node,c.value)
            if g: put(f,c.lineno,ch(c.lineno,c.col_offset)+1,c.value,g)
            elif c.value in UNIQUE: put(f,c.lineno,ch(c.lineno,c.col_offset)+1,c.value,UNIQUE[c.value]); note('setattr-by-name',f,n.lineno,c.value)
            elif c.value in {k.rsplit('.',1)[1] for k in GLOB} or c.value in defs and defs[c.value]!={None}: note('setattr?',f,n.lineno,c.value)
# ---------- apply edits
RESULT={}
for f,e in EDITS.items():
    L=SRC[f].split('\n')
    for (ln,co),(old,new) in sorted(e.items(),reverse=True):
        l=L[ln-1]
        if l[co:co+len(old)]!=old: note('position',f,ln,co,old,new,l.strip()[:60]); continue
        if new.endswith(' as '+old) and re.match(r'\s+as\b',l[co+len(old):]): new=new.split(' as ')[0]
        L[ln-1]=l[:co]+new+l[co+len(old):]
    RESULT[f]='\n'.join(L)
# ---------- words in docstrings and comments
def doc_words(f):
    s=RESULT.get(f,SRC[f]); b=BIND[f]; L=s.split('\n')
    glob={n:global_new(f,n) for n in b.mod.names if global_new(f,n)}
    toks=[]
    try: toks=list(tokenize.generate_tokens(io.StringIO(s).readline))
    except Exception as e: note('tokenize',f,e); return s
    spans=[]
    for sc in b.scopes:
        if sc.kind in('func','class'): spans.append((sc.node.lineno,sc.node.end_lineno,sc))
    cls_members={}
    def table(line):
        t=dict(glob)
        inside=sorted((x for x in spans if x[0]<=line<=x[1]),key=lambda x:x[0])
        for a,z,sc in inside:
            if sc.kind=='class':
                for n in class_attrs(sc):
                    g=base_member(f,sc,n)
                    if g: t[n]=g
            else:
                for x in inner(sc,f): t.update(x.rename)
        return t,inside
    out=[]
    edits=[]
    prev=None
    for t in toks:
        isdoc=t.type==tokenize.STRING and t.string.lstrip('rR')[:3]=='"""'
        if isdoc or t.type==tokenize.COMMENT:
            tb,inside=table(t.start[0])
            if not tb and not UNIQUE: continue
            txt=t.string
            new=re.sub(r'`([A-Za-z_][\w.]*)`',lambda m:'`'+wordof(m.group(1),tb)+'`',txt)
            if isdoc:
                nl=new.split('\n')
                for i,l in enumerate(nl):
                    m=re.match(r'(\s+)(\w+)(: .*)$',l)
                    if m and m.group(2) in tb and '>>>' not in l: nl[i]=m.group(1)+tb[m.group(2)]+m.group(3)
                    if re.match(r'\s*(>>>|\.\.\.) ',l):
                        nl[i]=re.sub(r'(?<![\w."\'])([A-Za-z_]\w*)(?!\w)',lambda m:tb.get(m.group(1),m.group(1)) if m.group(1) in glob or m.group(1) in tb else m.group(1),l)
                        nl[i]=re.sub(r'\.([A-Za-z_]\w*)',lambda m:'.'+UNIQUE.get(m.group(1),m.group(1)),nl[i])
                new='\n'.join(nl)
            if new!=txt: edits.append((t.start,t.end,new))
    for st,en,new in sorted(edits,reverse=True):
        head=L[st[0]-1][:st[1]]; tail=L[en[0]-1][en[1]:]
        L[st[0]-1:en[0]]=(head+new+tail).split('\n')
    return '\n'.join(L)
def wordof(w,tb):
    if '.' in w:
        parts=w.split('.')
        for i in range(len(parts)-1,0,-1):
            k='.'.join(parts[:i]); 
            if '.'.join(parts) in GLOB or '.'.join(parts) in MEMB: return k+'.'+(GLOB.get(w) or MEMB.get(w)) if i==len(parts)-1 else w
        if len(parts)==2:
            a=tb.get(parts[0],parts[0]); bb=UNIQUE.get(parts[1],parts[1])
            return f'{a}.{bb}'
        return w
    return tb.get(w,w)
if GLOB or MEMB or any(sc.rename for b in BIND.values() for sc in b.scopes):
    for f in pys:
        n=doc_words(f)
        if n!=SRC[f]: RESULT[f]=n
# dotted strings anywhere
full={**GLOB}
dotted={k:k.rsplit('.',1)[0]+'.'+v for k,v in full.items()}
if dotted:
    R=re.compile(r'(?<![\w.])('+'|'.join(map(re.escape,sorted(dotted,key=len,reverse=True)))+r')(?!\w)')
    for f in files:
        if f.endswith(('.py','.md','.toml','.j2','.yaml')) and not f.startswith('CHANGELOG'):
            s=RESULT.get(f) or (SRC[f] if f in SRC else Path(f).read_text())
            n=R.sub(lambda m:dotted[m.group(1)],s)
            if n!=s: RESULT[f]=n
RX=re.compile(r'(?<![\w.])((?:rollout|api)(?:\.\w+)+)\.(\w+)')
def rx(m):
    if m.group(1) in MOD:
        g=chase(m.group(1),m.group(2))
        if g: return f'{m.group(1)}.{g}'
    elif m.group(1).rsplit('.',1)[0] in MOD:  # module.Class.member
        mod,c=m.group(1).rsplit('.',1)
        k=f'{m.group(1)}.{m.group(2)}'
        if k in MEMB: return f"{mod}.{GLOB.get(m.group(1),c)}.{MEMB[k]}"
    return m.group(0)
for f in files:
    if f.endswith('.py'):
        s=RESULT.get(f) or SRC[f]
        n='\n'.join(l if re.match(r'\s*(from|import) ',l) else RX.sub(rx,l) for l in s.split('\n'))
        if n!=s: RESULT[f]=n
# templates
for f in files:
    if f.endswith('.j2'):
        s=RESULT.get(f) or Path(f).read_text()
        def tpl(m):
            inner_=m.group(0)
            def rep(x):
                a=x.group(1)
                if a in UNIQUE: note('template',f,a,UNIQUE[a]); return '.'+UNIQUE[a]
                if a in defs and defs[a]!={None}: note('template?',f,a,defs[a])
                return x.group(0)
            return re.sub(r'(?<=[\w)\]])\.([A-Za-z_]\w*)',rep,inner_)
        n=re.sub(r'\{[{%].*?[%}]\}',tpl,s,flags=re.S)
        if n!=s: RESULT[f]=n
for k in sorted(LOG): print(k,LOG[k])
with open('./rename.log','w') as h:
    for r in REPORT: h.write('\t'.join(r)+'\n')
print('files',len(RESULT),'edits',sum(map(len,EDITS.values())),'globals',len(GLOB),'members',len(MEMB))
import json
json.dump({'MEMB':MEMB,'GLOB':GLOB},open('./renamed.json','w'))
if APPLY:
    for f,s in RESULT.items(): Path(f).write_text(s)

--
-- PostgreSQL database dump
--

\restrict searcher

-- Dumped from database version 18.4
-- Dumped by pg_dump version 18.4

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: searcher_study; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.searcher_study (
    id integer NOT NULL,
    name character varying(200) NOT NULL,
    n_trials integer NOT NULL,
    config json NOT NULL,
    versions json NOT NULL,
    created_at timestamp with time zone NOT NULL,
    kind character varying(16) DEFAULT 'search'::character varying NOT NULL,
    CONSTRAINT ck_searcher_study_kind CHECK (((kind)::text = ANY ((ARRAY['search'::character varying, 'design'::character varying])::text[])))
);


--
-- Name: searcher_task_config; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.searcher_task_config (
    study_id integer NOT NULL,
    number integer NOT NULL,
    hash character varying(16) NOT NULL,
    config json NOT NULL,
    declaration json NOT NULL,
    objective character varying(100) NOT NULL,
    direction character varying(16) NOT NULL,
    tie_breaker character varying(100) NOT NULL,
    data_digest character varying(200) NOT NULL,
    CONSTRAINT ck_searcher_task_config_direction CHECK (((direction)::text = ANY ((ARRAY['minimize'::character varying, 'maximize'::character varying])::text[]))),
    CONSTRAINT ck_searcher_task_config_number CHECK ((number >= 0))
);


--
-- Name: searcher_trial; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.searcher_trial (
    study_id integer NOT NULL,
    number integer NOT NULL,
    kind character varying(16) NOT NULL,
    name character varying(64) NOT NULL,
    expression text NOT NULL,
    key character varying(32) NOT NULL,
    choices text,
    seed integer NOT NULL,
    state character varying(16) NOT NULL,
    reason text NOT NULL,
    cites integer,
    retries integer NOT NULL,
    parameters integer,
    seconds double precision NOT NULL,
    worker text NOT NULL,
    finish_order integer,
    created_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    task_config integer DEFAULT 0 NOT NULL,
    value double precision,
    merit double precision,
    tie_merit double precision,
    metrics json,
    CONSTRAINT ck_searcher_trial_complete CHECK ((((state)::text <> 'COMPLETE'::text) OR ((value IS NOT NULL) AND (merit IS NOT NULL) AND (metrics IS NOT NULL)))),
    CONSTRAINT ck_searcher_trial_finished CHECK ((((state)::text = ANY (ARRAY[('WAITING'::character varying)::text, ('RUNNING'::character varying)::text])) = (finish_order IS NULL))),
    CONSTRAINT ck_searcher_trial_kind CHECK (((kind)::text = ANY (ARRAY[('baseline'::character varying)::text, ('candidate'::character varying)::text]))),
    CONSTRAINT ck_searcher_trial_number CHECK ((number >= 0)),
    CONSTRAINT ck_searcher_trial_seconds CHECK (((seconds >= (0)::double precision) AND (seconds <= ('1000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision))),
    CONSTRAINT ck_searcher_trial_state CHECK (((state)::text = ANY (ARRAY[('WAITING'::character varying)::text, ('RUNNING'::character varying)::text, ('COMPLETE'::character varying)::text, ('PRUNED'::character varying)::text, ('INFEASIBLE'::character varying)::text, ('FAILED'::character varying)::text]))),
    CONSTRAINT ck_searcher_trial_tie_merit CHECK ((abs(tie_merit) <= ('1000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_searcher_trial_value CHECK (((abs(value) <= ('1000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision) AND ((merit = value) OR (merit = (- value)))))
);


--
-- Name: leaderboard; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.leaderboard AS
 WITH result AS (
         SELECT searcher_trial.study_id,
            searcher_trial.task_config,
            searcher_trial.key,
            min(searcher_trial.number) AS first,
            count(*) AS n_trials,
            avg(searcher_trial.value) AS value,
            avg(searcher_trial.merit) AS merit,
            avg(searcher_trial.tie_merit) AS tie_merit
           FROM public.searcher_trial
          WHERE (((searcher_trial.state)::text = 'COMPLETE'::text) AND (searcher_trial.cites IS NULL))
          GROUP BY searcher_trial.study_id, searcher_trial.task_config, searcher_trial.key
        )
 SELECT study.name AS study,
    result.task_config,
    row_number() OVER (PARTITION BY study.id, result.task_config ORDER BY result.merit DESC, result.tie_merit DESC, result.first) AS rank,
    trial.expression,
    trial.key,
    trial.kind,
    trial.name,
    result.n_trials,
    task.objective,
    result.value,
    trial.metrics,
    trial.state,
    trial.number
   FROM (((result
     JOIN public.searcher_study study ON ((study.id = result.study_id)))
     JOIN public.searcher_task_config task ON (((task.study_id = result.study_id) AND (task.number = result.task_config))))
     JOIN public.searcher_trial trial ON (((trial.study_id = result.study_id) AND (trial.number = result.first))));


--
-- Name: searcher_lease; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.searcher_lease (
    study_id integer NOT NULL,
    generation integer NOT NULL,
    holder text NOT NULL,
    expires_at double precision NOT NULL,
    acquired_at double precision DEFAULT '0'::double precision NOT NULL,
    serial integer DEFAULT 0 NOT NULL,
    writer integer DEFAULT 0 NOT NULL,
    stop_generation integer,
    pid integer,
    machine text,
    boot character varying(16),
    began character varying(32)
);


--
-- Name: searcher_point; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.searcher_point (
    study_id integer NOT NULL,
    number integer NOT NULL,
    step integer NOT NULL,
    metrics json NOT NULL
);


--
-- Name: searcher_study_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.searcher_study_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: searcher_study_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.searcher_study_id_seq OWNED BY public.searcher_study.id;


--
-- Name: searcher_tally; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.searcher_tally (
    study_id integer NOT NULL,
    state character varying(16) NOT NULL,
    trials integer NOT NULL,
    CONSTRAINT ck_searcher_tally_trials CHECK ((trials >= 0))
);


--
-- Name: searcher_version; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.searcher_version (
    version_num character varying(32) NOT NULL
);


--
-- Name: searcher_study id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searcher_study ALTER COLUMN id SET DEFAULT nextval('public.searcher_study_id_seq'::regclass);


--
-- Data for Name: searcher_lease; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.searcher_lease (study_id, generation, holder, expires_at, acquired_at, serial, writer, stop_generation, pid, machine, boot, began) FROM stdin;
1	3	process 22498 on worker-1, started 1795622109.20	1795622137.081039	1795622112.453812	25	3	\N	\N	\N	\N	\N
\.


--
-- Data for Name: searcher_point; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.searcher_point (study_id, number, step, metrics) FROM stdin;
1	0	1	{"train_loss" : 2.2562583684921265, "val_loss" : 2.263257080078125, "val_acc" : 0.22}
1	0	2	{"train_loss" : 1.6187970340251923, "val_loss" : 5.46600927734375, "val_acc" : 0.198}
1	0	3	{"train_loss" : 0.8789797127246857, "val_loss" : 3.39079443359375, "val_acc" : 0.398}
1	0	4	{"train_loss" : 0.5695176050066948, "val_loss" : 1.60804052734375, "val_acc" : 0.496}
1	1	1	{"train_loss" : 2.2318854331970215, "val_loss" : 2.09137060546875, "val_acc" : 0.286}
1	1	2	{"train_loss" : 1.4993733167648315, "val_loss" : 2.304055908203125, "val_acc" : 0.336}
1	1	3	{"train_loss" : 0.8025943040847778, "val_loss" : 2.03835498046875, "val_acc" : 0.446}
1	1	4	{"train_loss" : 0.5124837756156921, "val_loss" : 1.1414146728515624, "val_acc" : 0.596}
1	2	1	{"train_loss" : 2.2104305624961853, "val_loss" : 1.968914306640625, "val_acc" : 0.464}
1	2	2	{"train_loss" : 1.5790249109268188, "val_loss" : 1.1635460205078125, "val_acc" : 0.7}
1	2	3	{"train_loss" : 0.836842268705368, "val_loss" : 0.7499161987304688, "val_acc" : 0.81}
1	2	4	{"train_loss" : 0.5670736730098724, "val_loss" : 0.6950995483398438, "val_acc" : 0.83}
1	3	1	{"train_loss" : 2.0531049370765686, "val_loss" : 2.005746826171875, "val_acc" : 0.408}
1	3	2	{"train_loss" : 1.1854054033756256, "val_loss" : 4.7075654296875, "val_acc" : 0.752}
1	3	3	{"train_loss" : 0.5620749294757843, "val_loss" : 1.8994801025390624, "val_acc" : 0.808}
1	3	4	{"train_loss" : 0.3279232829809189, "val_loss" : 0.7091163330078125, "val_acc" : 0.848}
1	5	1	{"train_loss" : 2.3342559933662415, "val_loss" : 2.31166455078125, "val_acc" : 0.11}
1	6	1	{"train_loss" : 2.3350399136543274, "val_loss" : 2.30919970703125, "val_acc" : 0.074}
1	10	1	{"train_loss" : 3.7773828506469727, "val_loss" : 51.3478671875, "val_acc" : 0.074}
1	11	1	{"train_loss" : 2.4074764251708984, "val_loss" : 5.036896484375, "val_acc" : 0.108}
1	12	1	{"train_loss" : 2.255729079246521, "val_loss" : 2.09855078125, "val_acc" : 0.332}
1	12	2	{"train_loss" : 1.7622652053833008, "val_loss" : 1.4509140625, "val_acc" : 0.648}
1	12	3	{"train_loss" : 1.0217241495847702, "val_loss" : 1.015976318359375, "val_acc" : 0.766}
1	12	4	{"train_loss" : 0.6959047764539719, "val_loss" : 0.914501220703125, "val_acc" : 0.79}
1	13	1	{"train_loss" : 2.4212639331817627, "val_loss" : 2.8611806640625, "val_acc" : 0.098}
1	15	1	{"train_loss" : 2.316058337688446, "val_loss" : 2.5727265625, "val_acc" : 0.372}
1	15	2	{"train_loss" : 2.0971981585025787, "val_loss" : 33.57778125, "val_acc" : 0.11}
1	15	3	{"train_loss" : 2.412819981575012, "val_loss" : 17.352736328125, "val_acc" : 0.118}
1	15	4	{"train_loss" : 1.230369746685028, "val_loss" : 4.80400439453125, "val_acc" : 0.21}
1	18	1	{"train_loss" : 2.4754894971847534, "val_loss" : 11.2010205078125, "val_acc" : 0.098}
1	24	1	{"train_loss" : 2.1206384897232056, "val_loss" : 2.40760888671875, "val_acc" : 0.486}
1	24	2	{"train_loss" : 1.5499931871891022, "val_loss" : 16.90100390625, "val_acc" : 0.522}
1	24	3	{"train_loss" : 0.867420107126236, "val_loss" : 4.6652197265625, "val_acc" : 0.678}
1	24	4	{"train_loss" : 0.535696730017662, "val_loss" : 1.3775712890625, "val_acc" : 0.758}
1	26	1	{"train_loss" : 1.9524275958538055, "val_loss" : 10.2752802734375, "val_acc" : 0.064}
1	26	2	{"train_loss" : 2.1256324350833893, "val_loss" : 6.454966796875, "val_acc" : 0.542}
1	26	3	{"train_loss" : 0.9267042875289917, "val_loss" : 1.0939595947265626, "val_acc" : 0.838}
1	26	4	{"train_loss" : 0.3309174105525017, "val_loss" : 0.650865234375, "val_acc" : 0.852}
\.


--
-- Data for Name: searcher_study; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.searcher_study (id, name, n_trials, config, versions, created_at, kind) FROM stdin;
1	old	60	{"study_name": "old", "objective": "val_loss", "sampler": "random", "sampler_kwargs": {}, "n_trials": 30, "timeout": 0.0, "seed": 5, "split_seed": 0, "space": "swish2017", "units": 1, "unary": ["x", "sin", "tanh", "sqrt", "abs", "exp"], "binary": ["add", "mul", "max", "div"], "primitives": [], "preflight": true, "baselines": ["relu", "swish", "tanh", "linear"], "dataset": "digits", "data_dir": "", "limit_train": 200, "model": "resnet8", "width": 4, "model_kwargs": {}, "recipe": {"name": "quick", "epochs": 4, "steps": 0, "batch_size": 50, "learning_rate": 0.5, "momentum": 0.9, "nesterov": true, "weight_decay": 0.0005, "schedule": "onecycle", "warmup": 0.25, "drops": [], "drop_factor": 0.1, "label_smoothing": 0.0, "clip_norm": 0.0, "crop": 0, "flip": false, "cutout": 0, "precision": "auto"}, "compile": false, "pruner": "median", "checkpoint_dir": "", "checkpoint_seconds": 60.0, "trial_timeout": 0.0, "max_retries": 2, "pool": "inline", "workers": 0, "gpus_per_worker": 0.0, "address": "local", "threads": 1}	{"searcher": "0.1.0", "python": "3.11.7", "platform": "Linux-6.18.44-fc-v669-x86_64-with-glibc2.36", "torch": "2.13.0+cpu", "ray": "2.60.0", "optuna": "5.0.0", "sqlalchemy": "2.1.9", "scikit-learn": "1.9.1", "data": "ad37fa1cd93dc948"}	2026-11-25 15:55:00.144075+00	search
\.


--
-- Data for Name: searcher_tally; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.searcher_tally (study_id, state, trials) FROM stdin;
1	RUNNING	4
1	INFEASIBLE	24
1	WAITING	0
1	COMPLETE	9
1	FAILED	2
1	PRUNED	13
\.


--
-- Data for Name: searcher_task_config; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.searcher_task_config (study_id, number, hash, config, declaration, objective, direction, tie_breaker, data_digest) FROM stdin;
1	0	39f4d7354d178c64	{"task": "images", "parameters": {"limit_train": 200, "standardise": true, "width": 4, "recipe": {"epochs": 4, "batch_size": 50, "learning_rate": 0.5, "name": "quick"}}, "primitives": []}	{"metrics": [{"name": "train_loss", "direction": "minimize", "unit": "nats"}, {"name": "val_loss", "direction": "minimize", "unit": "nats"}, {"name": "val_acc", "direction": "maximize", "unit": "fraction"}], "objective": "val_loss", "tie_breaker": "val_acc", "also_good": ["train_loss"], "steps": 0, "options": {}, "digest": ""}	val_loss	minimize	val_acc	ad37fa1cd93dc948
\.


--
-- Data for Name: searcher_trial; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.searcher_trial (study_id, number, kind, name, expression, key, choices, seed, state, reason, cites, retries, parameters, seconds, worker, finish_order, created_at, finished_at, task_config, value, merit, tie_merit, metrics) FROM stdin;
1	4	candidate		sqrt(x) + tanh(x)	cc3d1306eb3096cf	[0, 0, 3, 2, 0]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	\N	0	\N	0		4	2026-11-25 15:55:01.650175+00	2026-11-25 15:55:01.650175+00	0	\N	\N	\N	\N
1	7	candidate		sqrt(x) * x	46bb0ef2956457b4	[0, 0, 3, 0, 1]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	\N	0	\N	0		7	2026-11-25 15:55:01.729632+00	2026-11-25 15:55:01.729632+00	0	\N	\N	\N	\N
1	8	candidate		abs(x) / (sin(x) + eps)	5957da3a6e17a030	[0, 0, 4, 1, 3]	5	INFEASIBLE	not trained: it has a pole at x = -3.14159, where sin(x) + eps is 0	\N	0	\N	0		8	2026-11-25 15:55:01.729632+00	2026-11-25 15:55:01.729632+00	0	\N	\N	\N	\N
1	14	candidate		exp(x) / (sqrt(x) + eps)	ab05601a488603d3	[0, 0, 5, 3, 3]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	\N	0	\N	0		14	2026-11-25 15:55:01.954915+00	2026-11-25 15:55:01.954915+00	0	\N	\N	\N	\N
1	16	candidate		sqrt(x) * sin(x)	c4dfc82b8e0a499d	[0, 0, 3, 1, 1]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	\N	0	\N	0		16	2026-11-25 15:55:02.075708+00	2026-11-25 15:55:02.075708+00	0	\N	\N	\N	\N
1	20	candidate		x * x	e5781cfbe5a29e93	[0, 0, 0, 0, 1]	5	INFEASIBLE	training loss is not finite at epoch 1, step 2	\N	0	4934	0.009094064000009894		20	2026-11-25 15:55:02.101299+00	2026-11-25 15:55:02.122511+00	0	\N	\N	\N	\N
1	22	candidate		sqrt(x) * sqrt(x)	5f8018ef9c2e1ea9	[0, 0, 3, 3, 1]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	\N	0	\N	0		22	2026-11-25 15:55:02.13982+00	2026-11-25 15:55:02.13982+00	0	\N	\N	\N	\N
1	23	candidate		sqrt(x) / (abs(x) + eps)	5f81981955f043b3	[0, 0, 3, 4, 3]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	\N	0	\N	0		23	2026-11-25 15:55:02.13982+00	2026-11-25 15:55:02.13982+00	0	\N	\N	\N	\N
1	21	candidate		exp(x) * x	6c40ef4b206c2e0b	[0, 0, 5, 0, 1]	5	INFEASIBLE	training loss is not finite at epoch 1, step 1	\N	0	4934	0.006516168999951333		21	2026-11-25 15:55:02.122511+00	2026-11-25 15:55:02.13982+00	0	\N	\N	\N	\N
1	28	candidate		tanh(x) * sqrt(x)	3d8edde830a876d6	[0, 0, 2, 3, 1]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	\N	0	\N	0		28	2026-11-25 15:55:02.333966+00	2026-11-25 15:55:02.333966+00	0	\N	\N	\N	\N
1	29	candidate		sqrt(x) + sin(x)	f74ab5a13f709c0b	[0, 0, 3, 1, 0]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	\N	0	\N	0		29	2026-11-25 15:55:02.333966+00	2026-11-25 15:55:02.333966+00	0	\N	\N	\N	\N
1	30	candidate		max(x, sqrt(x))	9f0a1c20f4c3f86b	[0, 0, 0, 3, 2]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	\N	0	\N	0		30	2026-11-25 15:55:06.796511+00	2026-11-25 15:55:06.796511+00	0	\N	\N	\N	\N
1	31	candidate		max(tanh(x), sqrt(x))	77beb6081423c247	[0, 0, 2, 3, 2]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	\N	0	\N	0		31	2026-11-25 15:55:06.796511+00	2026-11-25 15:55:06.796511+00	0	\N	\N	\N	\N
1	33	candidate		abs(x) * sqrt(x)	46bb0ef2956457b4	[0, 0, 4, 3, 1]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	7	0	\N	0		33	2026-11-25 15:55:07.703807+00	2026-11-25 15:55:07.703807+00	0	\N	\N	\N	\N
1	32	candidate		max(sin(x), x)	d91250d7dd6f2d5c	[0, 0, 1, 0, 2]	5	FAILED	timed out after 0.01 s	\N	0	4934	0.016401482999981454		32	2026-11-25 15:55:06.796511+00	2026-11-25 15:55:07.703807+00	0	\N	\N	\N	\N
1	34	candidate		sin(x) + sin(x)	59e9d390babcc7db	[0, 0, 1, 1, 0]	5	FAILED	timed out after 0.01 s	\N	0	4934	0.011827811000102884		34	2026-11-25 15:55:07.703807+00	2026-11-25 15:55:07.723048+00	0	\N	\N	\N	\N
1	35	candidate		max(sin(x), sqrt(x))	77beb6081423c247	[0, 0, 1, 3, 2]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	31	0	\N	0		35	2026-11-25 15:55:07.723048+00	2026-11-25 15:55:07.723048+00	0	\N	\N	\N	\N
1	36	candidate		sqrt(x) / (exp(x) + eps)	412085c61be25e8c	[0, 0, 3, 5, 3]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	\N	0	\N	0		36	2026-11-25 15:55:21.071257+00	2026-11-25 15:55:21.071257+00	0	\N	\N	\N	\N
1	37	candidate		exp(x) / (tanh(x) + eps)	f4e6c3daa5066f44	[0, 0, 5, 2, 3]	5	INFEASIBLE	not trained: it has a pole at x = -1e-06, where tanh(x) + eps is 0	\N	0	\N	0		37	2026-11-25 15:55:21.071257+00	2026-11-25 15:55:21.071257+00	0	\N	\N	\N	\N
1	38	candidate		x * sqrt(x)	46bb0ef2956457b4	[0, 0, 0, 3, 1]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	7	0	\N	0		38	2026-11-25 15:55:21.071257+00	2026-11-25 15:55:21.071257+00	0	\N	\N	\N	\N
1	40	candidate		sqrt(x) * exp(x)	f7409fb7ecbf67c3	[0, 0, 3, 5, 1]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	\N	0	\N	0		40	2026-11-25 15:55:21.071257+00	2026-11-25 15:55:21.071257+00	0	\N	\N	\N	\N
1	41	candidate		sqrt(x) / (x + eps)	5f81981955f043b3	[0, 0, 3, 0, 3]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	23	0	\N	0		41	2026-11-25 15:55:21.071257+00	2026-11-25 15:55:21.071257+00	0	\N	\N	\N	\N
1	44	candidate		max(sqrt(x), tanh(x))	77beb6081423c247	[0, 0, 3, 2, 2]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	31	0	\N	0		42	2026-11-25 15:55:21.071257+00	2026-11-25 15:55:21.071257+00	0	\N	\N	\N	\N
1	45	candidate		max(sqrt(x), sin(x))	77beb6081423c247	[0, 0, 3, 1, 2]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	31	0	\N	0		43	2026-11-25 15:55:21.071257+00	2026-11-25 15:55:21.071257+00	0	\N	\N	\N	\N
1	48	candidate		sqrt(x) * exp(x)	f7409fb7ecbf67c3	[0, 0, 3, 5, 1]	5	INFEASIBLE	not trained: its value is nan at x = -0.0078125	40	0	\N	0		45	2026-11-25 15:55:21.071257+00	2026-11-25 15:55:21.071257+00	0	\N	\N	\N	\N
1	49	candidate		x * x	e5781cfbe5a29e93	[0, 0, 0, 0, 1]	5	INFEASIBLE	training loss is not finite at epoch 1, step 2	20	0	4934	0		46	2026-11-25 15:55:21.071257+00	2026-11-25 15:55:21.071257+00	0	\N	\N	\N	\N
1	42	candidate		exp(x) + exp(x)	e8dd3f1777a3bbd1	[0, 0, 5, 5, 0]	5	RUNNING		\N	0	\N	0		\N	2026-11-25 15:55:21.071257+00	\N	0	\N	\N	\N	\N
1	43	candidate		tanh(x) + tanh(x)	1e74007c7d210c29	[0, 0, 2, 2, 0]	5	RUNNING		\N	0	\N	0		\N	2026-11-25 15:55:21.071257+00	\N	0	\N	\N	\N	\N
1	47	candidate		abs(x) * exp(x)	19296d97d0c217d3	[0, 0, 4, 5, 1]	5	RUNNING		\N	0	\N	0		\N	2026-11-25 15:55:21.071257+00	\N	0	\N	\N	\N	\N
1	51	candidate		sin(x) * x	af272bf7d13afd8b	[0, 0, 1, 0, 1]	5	RUNNING		\N	0	\N	0		\N	2026-11-25 15:55:21.071257+00	\N	0	\N	\N	\N	\N
1	0	baseline	relu	max(x, 0)	2dff0748b001363c	\N	5	COMPLETE		\N	0	4934	0.07582854700012831		0	2026-11-25 15:55:00.144075+00	2026-11-25 15:55:01.394466+00	0	1.60804052734375	-1.60804052734375	0.496	{"val_loss" : 1.60804052734375, "val_acc" : 0.496}
1	1	baseline	swish	x * sigmoid(beta * x)	610b0f439cb7376c	\N	5	COMPLETE		\N	0	4994	0.0973545340000328		1	2026-11-25 15:55:00.144075+00	2026-11-25 15:55:01.495679+00	0	1.1414146728515624	-1.1414146728515624	0.596	{"val_loss" : 1.1414146728515624, "val_acc" : 0.596}
1	2	baseline	tanh	tanh(x)	dacb1ee3d4d97e1d	\N	5	COMPLETE		\N	0	4934	0.07180169100001876		2	2026-11-25 15:55:00.144075+00	2026-11-25 15:55:01.571199+00	0	0.6950995483398438	-0.6950995483398438	0.83	{"val_loss" : 0.6950995483398438, "val_acc" : 0.83}
1	3	baseline	linear	x	530bb824aef9780c	\N	5	COMPLETE		\N	0	4934	0.06259102400008487		3	2026-11-25 15:55:00.144075+00	2026-11-25 15:55:01.650175+00	0	0.7091163330078125	-0.7091163330078125	0.848	{"val_loss" : 0.7091163330078125, "val_acc" : 0.848}
1	5	candidate		sin(x) * sin(x)	2db5068a1c4a809e	[0, 0, 1, 1, 1]	5	PRUNED	stopped after epoch 1: train_loss 2.3343, val_acc 0.1100 are no better than guessing	\N	0	4934	0.024481793999939327		5	2026-11-25 15:55:01.650175+00	2026-11-25 15:55:01.687146+00	0	2.31166455078125	-2.31166455078125	0.11	{"val_loss" : 2.31166455078125, "val_acc" : 0.11}
1	9	candidate		tanh(x) * tanh(x)	7cbf6c854ce20ba8	[0, 0, 2, 2, 1]	5	PRUNED	stopped after epoch 1: train_loss 2.3350, val_acc 0.0740 are no better than guessing	6	0	4934	0		9	2026-11-25 15:55:01.729632+00	2026-11-25 15:55:01.729632+00	0	2.30919970703125	-2.30919970703125	0.074	{"val_loss" : 2.30919970703125, "val_acc" : 0.074}
1	6	candidate		tanh(x) * tanh(x)	7cbf6c854ce20ba8	[0, 0, 2, 2, 1]	5	PRUNED	stopped after epoch 1: train_loss 2.3350, val_acc 0.0740 are no better than guessing	\N	0	4934	0.027405164000128934		6	2026-11-25 15:55:01.687146+00	2026-11-25 15:55:01.729632+00	0	2.30919970703125	-2.30919970703125	0.074	{"val_loss" : 2.30919970703125, "val_acc" : 0.074}
1	10	candidate		x + abs(x)	ec37ecee294d7af4	[0, 0, 0, 4, 0]	5	PRUNED	stopped after epoch 1: train_loss 3.7774, val_acc 0.0740 are no better than guessing	\N	0	4934	0.02606969199996456		10	2026-11-25 15:55:01.729632+00	2026-11-25 15:55:01.770084+00	0	51.3478671875	-51.3478671875	0.074	{"val_loss" : 51.3478671875, "val_acc" : 0.074}
1	11	candidate		x * tanh(x)	1b15671b58ef71a2	[0, 0, 0, 2, 1]	5	PRUNED	stopped after epoch 1: train_loss 2.4075, val_acc 0.1080 are no better than guessing	\N	0	4934	0.02734108900017418		11	2026-11-25 15:55:01.770084+00	2026-11-25 15:55:01.80715+00	0	5.036896484375	-5.036896484375	0.108	{"val_loss" : 5.036896484375, "val_acc" : 0.108}
1	12	candidate		max(sin(x), sin(x))	8306ab08ed34f1bd	[0, 0, 1, 1, 2]	5	COMPLETE		\N	0	4934	0.08858372100007728		12	2026-11-25 15:55:01.80715+00	2026-11-25 15:55:01.903748+00	0	0.914501220703125	-0.914501220703125	0.79	{"val_loss" : 0.914501220703125, "val_acc" : 0.79}
1	13	candidate		exp(x) / (exp(x) + eps)	7eaca2ae81cb2dc4	[0, 0, 5, 5, 3]	5	PRUNED	stopped after epoch 1: train_loss 2.4213, val_loss 2.8612, val_acc 0.0980; behind in train_loss (2.3350) and in val_loss (2.3117)	\N	0	4934	0.03144509999992806		13	2026-11-25 15:55:01.903748+00	2026-11-25 15:55:01.954915+00	0	2.8611806640625	-2.8611806640625	0.098	{"val_loss" : 2.8611806640625, "val_acc" : 0.098}
1	17	candidate		x + abs(x)	ec37ecee294d7af4	[0, 0, 0, 4, 0]	5	PRUNED	stopped after epoch 1: train_loss 3.7774, val_acc 0.0740 are no better than guessing	10	0	4934	0		17	2026-11-25 15:55:02.075708+00	2026-11-25 15:55:02.075708+00	0	51.3478671875	-51.3478671875	0.074	{"val_loss" : 51.3478671875, "val_acc" : 0.074}
1	15	candidate		abs(x) / (tanh(x) + eps)	7b3d1df1268d0e64	[0, 0, 4, 2, 3]	5	COMPLETE		\N	0	4934	0.0861611330001324		15	2026-11-25 15:55:01.954915+00	2026-11-25 15:55:02.075708+00	0	4.80400439453125	-4.80400439453125	0.21	{"val_loss" : 4.80400439453125, "val_acc" : 0.21}
1	19	candidate		max(abs(x), tanh(x))	81db0ed5aeb8bb07	[0, 0, 4, 2, 2]	5	PRUNED	stopped after epoch 1: train_loss 2.4755, val_loss 11.2010, val_acc 0.0980; behind in train_loss (2.3350) and in val_loss (2.5727)	18	0	4934	0		19	2026-11-25 15:55:02.101299+00	2026-11-25 15:55:02.101299+00	0	11.2010205078125	-11.2010205078125	0.098	{"val_loss" : 11.2010205078125, "val_acc" : 0.098}
1	18	candidate		max(abs(x), abs(x))	81db0ed5aeb8bb07	[0, 0, 4, 4, 2]	5	PRUNED	stopped after epoch 1: train_loss 2.4755, val_loss 11.2010, val_acc 0.0980; behind in train_loss (2.3350) and in val_loss (2.5727)	\N	0	4934	0.020815135000020746		18	2026-11-25 15:55:02.075708+00	2026-11-25 15:55:02.101299+00	0	11.2010205078125	-11.2010205078125	0.098	{"val_loss" : 11.2010205078125, "val_acc" : 0.098}
1	25	candidate		max(abs(x), sin(x))	81db0ed5aeb8bb07	[0, 0, 4, 1, 2]	5	PRUNED	stopped after epoch 1: train_loss 2.4755, val_loss 11.2010, val_acc 0.0980; behind in train_loss (2.3350) and in val_loss (2.5727)	18	0	4934	0		25	2026-11-25 15:55:02.238419+00	2026-11-25 15:55:02.238419+00	0	11.2010205078125	-11.2010205078125	0.098	{"val_loss" : 11.2010205078125, "val_acc" : 0.098}
1	24	candidate		tanh(x) * abs(x)	02a9753fcfc87100	[0, 0, 2, 4, 1]	5	COMPLETE		\N	0	4934	0.0859517760000017		24	2026-11-25 15:55:02.13982+00	2026-11-25 15:55:02.238419+00	0	1.3775712890625	-1.3775712890625	0.758	{"val_loss" : 1.3775712890625, "val_acc" : 0.758}
1	27	candidate		max(abs(x), sin(x))	81db0ed5aeb8bb07	[0, 0, 4, 1, 2]	5	PRUNED	stopped after epoch 1: train_loss 2.4755, val_loss 11.2010, val_acc 0.0980; behind in train_loss (2.3350) and in val_loss (2.5727)	18	0	4934	0		27	2026-11-25 15:55:02.333966+00	2026-11-25 15:55:02.333966+00	0	11.2010205078125	-11.2010205078125	0.098	{"val_loss" : 11.2010205078125, "val_acc" : 0.098}
1	26	candidate		x + tanh(x)	3a9326878a37f4d8	[0, 0, 0, 2, 0]	5	COMPLETE		\N	0	4934	0.07027955099988503		26	2026-11-25 15:55:02.238419+00	2026-11-25 15:55:02.333966+00	0	0.650865234375	-0.650865234375	0.852	{"val_loss" : 0.650865234375, "val_acc" : 0.852}
1	39	candidate		max(x, abs(x))	81db0ed5aeb8bb07	[0, 0, 0, 4, 2]	5	PRUNED	stopped after epoch 1: train_loss 2.4755, val_loss 11.2010, val_acc 0.0980; behind in train_loss (2.3350) and in val_loss (2.5727)	18	0	4934	0		39	2026-11-25 15:55:21.071257+00	2026-11-25 15:55:21.071257+00	0	11.2010205078125	-11.2010205078125	0.098	{"val_loss" : 11.2010205078125, "val_acc" : 0.098}
1	46	candidate		max(tanh(x), tanh(x))	dacb1ee3d4d97e1d	[0, 0, 2, 2, 2]	5	COMPLETE		2	0	4934	0		44	2026-11-25 15:55:21.071257+00	2026-11-25 15:55:21.071257+00	0	0.6950995483398438	-0.6950995483398438	0.83	{"val_loss" : 0.6950995483398438, "val_acc" : 0.83}
1	50	candidate		x * tanh(x)	1b15671b58ef71a2	[0, 0, 0, 2, 1]	5	PRUNED	stopped after epoch 1: train_loss 2.4075, val_acc 0.1080 are no better than guessing	11	0	4934	0		47	2026-11-25 15:55:21.071257+00	2026-11-25 15:55:21.071257+00	0	5.036896484375	-5.036896484375	0.108	{"val_loss" : 5.036896484375, "val_acc" : 0.108}
\.


--
-- Data for Name: searcher_version; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.searcher_version (version_num) FROM stdin;
0004
\.


--
-- Name: searcher_study_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.searcher_study_id_seq', 1, true);


--
-- Name: searcher_lease searcher_lease_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searcher_lease
    ADD CONSTRAINT searcher_lease_pkey PRIMARY KEY (study_id);


--
-- Name: searcher_point searcher_point_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searcher_point
    ADD CONSTRAINT searcher_point_pkey PRIMARY KEY (study_id, number, step);


--
-- Name: searcher_study searcher_study_name_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searcher_study
    ADD CONSTRAINT searcher_study_name_key UNIQUE (name);


--
-- Name: searcher_study searcher_study_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searcher_study
    ADD CONSTRAINT searcher_study_pkey PRIMARY KEY (id);


--
-- Name: searcher_tally searcher_tally_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searcher_tally
    ADD CONSTRAINT searcher_tally_pkey PRIMARY KEY (study_id, state);


--
-- Name: searcher_task_config searcher_task_config_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searcher_task_config
    ADD CONSTRAINT searcher_task_config_pkey PRIMARY KEY (study_id, number);


--
-- Name: searcher_trial searcher_trial_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searcher_trial
    ADD CONSTRAINT searcher_trial_pkey PRIMARY KEY (study_id, number);


--
-- Name: searcher_version searcher_version_pkc; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searcher_version
    ADD CONSTRAINT searcher_version_pkc PRIMARY KEY (version_num);


--
-- Name: searcher_trial uq_searcher_trial_finish_order; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searcher_trial
    ADD CONSTRAINT uq_searcher_trial_finish_order UNIQUE (study_id, finish_order);


--
-- Name: ix_searcher_trial_baseline; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_searcher_trial_baseline ON public.searcher_trial USING btree (study_id, name) WHERE ((kind)::text = 'baseline'::text);


--
-- Name: ix_searcher_trial_failed; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_searcher_trial_failed ON public.searcher_trial USING btree (study_id, number) WHERE ((state)::text = 'FAILED'::text);


--
-- Name: ix_searcher_trial_key; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_searcher_trial_key ON public.searcher_trial USING btree (study_id, key) WHERE (((state)::text = 'COMPLETE'::text) AND (cites IS NULL));


--
-- Name: ix_searcher_trial_merit; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_searcher_trial_merit ON public.searcher_trial USING btree (study_id, task_config, merit DESC, tie_merit DESC, number) WHERE (((state)::text = 'COMPLETE'::text) AND (cites IS NULL));


--
-- Name: searcher_lease searcher_lease_study_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searcher_lease
    ADD CONSTRAINT searcher_lease_study_id_fkey FOREIGN KEY (study_id) REFERENCES public.searcher_study(id);


--
-- Name: searcher_point searcher_point_study_id_number_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searcher_point
    ADD CONSTRAINT searcher_point_study_id_number_fkey FOREIGN KEY (study_id, number) REFERENCES public.searcher_trial(study_id, number);


--
-- Name: searcher_tally searcher_tally_study_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searcher_tally
    ADD CONSTRAINT searcher_tally_study_id_fkey FOREIGN KEY (study_id) REFERENCES public.searcher_study(id);


--
-- Name: searcher_task_config searcher_task_config_study_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searcher_task_config
    ADD CONSTRAINT searcher_task_config_study_id_fkey FOREIGN KEY (study_id) REFERENCES public.searcher_study(id);


--
-- Name: searcher_trial searcher_trial_study_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searcher_trial
    ADD CONSTRAINT searcher_trial_study_id_fkey FOREIGN KEY (study_id) REFERENCES public.searcher_study(id);


--
-- PostgreSQL database dump complete
--

\unrestrict searcher


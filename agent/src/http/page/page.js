// Keeps the page live. The server writes every word of it; this puts what it sends in place, lets ages tick between,
// and says so when nothing is sent any more. Without it the page is complete, and reloads itself.
'use strict';

// A length of time in milliseconds, as the server says it: its two largest units, tenths below ten seconds.
function span(ms) {
  const s = Math.floor(ms / 1000), min = Math.floor(s / 60), h = Math.floor(s / 3600), d = Math.floor(s / 86400);
  const words =
    s < 10 ? `${s}.${Math.floor((ms % 1000) / 100)} s` :
    s < 60 ? `${s} s` :
    s < 3600 ? `${min} min ${s % 60} s` :
    s < 86400 ? `${h} h ${min % 60} min` :
    `${d} d ${h % 24} h`;
  return words.replaceAll(/(\d) /g, '$1\u00a0');
}

(() => {
  const QUIET = 12000; // the server is never silent for so long
  const AGAIN = 3000; // from one attempt to the next

  const own = document.currentScript.dataset;
  const cut = document.getElementById('cut');
  let source, next, ticking;
  let heard = performance.now(); // when the server last said something
  let ahead; // of our steady clock, the gateway's: a tablet's own clock may be wrong
  let broken = false;

  function hear(now) {
    heard = performance.now();
    ahead = Date.parse(now) - heard;
    broken = false;
    tick();
  }

  function show(event) {
    const { page, now, parts } = JSON.parse(event.data);
    if (page !== own.page) return location.reload(); // other stations, or another version of gemba
    for (const [id, html] of Object.entries(parts)) document.getElementById(id).innerHTML = html;
    hear(now);
  }

  function connect() {
    source = new EventSource('/events?as=html');
    source.addEventListener('state', show);
    source.addEventListener('change', show);
    source.addEventListener('time', (event) => hear(JSON.parse(event.data).now));
    source.addEventListener('error', lose);
  }

  function lose() {
    source.close();
    clearTimeout(next);
    next = setTimeout(connect, AGAIN);
    broken = true;
    tick();
  }

  function tick() {
    const steady = performance.now();
    if (!broken && steady - heard > QUIET) return lose();
    // What we do not hear of may have ended: then nothing on the page goes on as if it lasted.
    const ages = broken ? [] : document.getElementsByClassName('age');
    for (const age of ages) age.textContent = span(Math.max(0, steady + ahead - Date.parse(age.dateTime)));
    document.body.classList.toggle('broken', broken);
    cut.hidden = !broken;
    if (broken) {
      const taken = document.querySelector('#asof time')?.textContent ?? 'an unknown time';
      const alert = `No connection to the gateway: the values are from ${taken} and do not change.`;
      if (cut.firstChild.textContent !== alert) cut.firstChild.textContent = alert; // read aloud once
      cut.lastChild.textContent = ` Nothing heard for ${span(steady - heard)}. Trying again.`;
    }
    clearTimeout(ticking);
    ticking = setTimeout(tick, 1000);
  }

  // Nobody reads a page that is not seen, and a browser has few connections to one server.
  document.addEventListener('visibilitychange', () => {
    clearTimeout(next);
    clearTimeout(ticking);
    source.close();
    if (document.hidden) return;
    heard = performance.now();
    connect();
    tick();
  });

  hear(own.now);
  connect();
})();

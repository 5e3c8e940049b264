"use strict";(()=>{document.title="s3 annotate";})();

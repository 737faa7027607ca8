<?php

return $this->go($ways);
